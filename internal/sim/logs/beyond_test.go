package logs

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/braiddb/braid/internal/logs"
	"github.com/braiddb/braid/internal/logs/reader"
	"github.com/braiddb/braid/internal/logs/recovery"
	"github.com/braiddb/braid/internal/logs/sequencer"
	"github.com/braiddb/braid/internal/sim"
	"github.com/braiddb/braid/internal/wire"
)

// TestBeyondWhatIsPromised runs some seeds of which a log loses more copies than it may.
func TestBeyondWhatIsPromised(t *testing.T) {
	wing := Wing()
	for _, seed := range []uint64{7, 11, 31, 265} {
		a := wing.Run(wing.Beyond(seed), nil)
		if a.Error != "" {
			t.Fatalf("seed %d: %s\nreplay: go run ./internal/sim/run -wing logs -beyond -seed %d", seed, a.Error, seed)
		}
		if b := wing.Run(wing.Beyond(seed), nil); b.Hash != a.Hash {
			t.Fatalf("seed %d: hashes %s and %s", seed, a.Hash, b.Hash)
		}
	}
}

// TestSilentDamageIsSeen has journals lose what they confirmed, and say nothing: where a
// reader is told that there is nothing, somebody notices.
func TestSilentDamageIsSeen(t *testing.T) {
	wing := Wing()
	for seed := uint64(1); seed < 200; seed++ {
		o := wing.Beyond(seed)
		at := slices.IndexFunc(o.Faults, func(f sim.Fault) bool { return strings.HasPrefix(f.Kind, "beyond") })
		o.Faults[at].Kind, o.Knobs["silent"] = faultVouched, 1
		if r := wing.Run(o, nil); strings.Contains(r.Error, "was acknowledged as") || strings.Contains(r.Error, "where readers found nothing") {
			return
		}
	}
	t.Fatal("nobody noticed")
}

// beyondWorld is a cluster before its first event, whose first log has had an epoch on
// nodes 1 to 3.
func beyondWorld() (*sim.World, *cluster, *truth) {
	var c *cluster
	o := drawBeyond(1)
	o.Nodes, o.Knobs["spares"], o.Knobs["copies"], o.Knobs["racks"], o.Knobs["nodeset"] = 3, 0, 2, 0, 0
	w := sim.NewWorld(o, nil, func(w *sim.World) sim.Cluster {
		c = newCluster(w)
		return c
	})
	x := c.truths[0]
	x.learns(&wire.EpochMetadata{EffectiveSince: 1, Replication: x.attrs.Replication, Nodeset: []uint64{1 << 8, 2 << 8, 3 << 8}})
	return w, c, x
}

// TestBeyondTearsNoJournal: beside the fault that is beyond what is promised none takes what
// a node confirmed, also not of one that comes to a moment: with one copy that loses it, too.
func TestBeyondTearsNoJournal(t *testing.T) {
	moments := 0
	for seed := range uint64(300) {
		for _, f := range drawBeyond(seed).Faults {
			if f.Kind == faultMoment {
				moments++
			}
			if tears(&f) {
				t.Errorf("seed %d: %+v", seed, f)
			}
		}
	}
	if moments < 100 {
		t.Errorf("only %d moments", moments)
	}
}

// TestALossIsJudged: DATALOSS is accepted of a log that lost more than it may, and there
// of what nobody has.
func TestALossIsJudged(t *testing.T) {
	lsn := logs.MakeLSN(1, 5)
	gap := &reader.Item{LSN: lsn, To: lsn + 1, Gap: logs.GapDataLoss}
	hurtBy := func(c *cluster, n int) {
		for _, m := range c.members[:n] {
			m.hurt.kind = faultVouched
		}
	}
	for name, x := range map[string]struct {
		hurt   int
		record *wire.LogRecord
		red    bool
	}{
		"nobody lost anything":       {red: true},
		"fewer did than copies":      {hurt: 1, red: true},
		"as many":                    {hurt: 2},
		"somebody has it":            {hurt: 2, record: &wire.LogRecord{Lsn: uint64(lsn), Payload: []byte("p"), Checksum: logs.Checksum([]byte("p"))}, red: true},
		"somebody has it, damaged":   {hurt: 2, record: &wire.LogRecord{Lsn: uint64(lsn), Payload: []byte("q"), Checksum: logs.Checksum([]byte("p"))}},
		"somebody has another":       {hurt: 2, record: &wire.LogRecord{Lsn: uint64(lsn + 1), Payload: []byte("p"), Checksum: logs.Checksum([]byte("p"))}},
		"somebody has a hole there":  {hurt: 2, record: &wire.LogRecord{Lsn: uint64(lsn), Flags: logs.FlagHole}},
		"somebody has what is above": {hurt: 2, record: &wire.LogRecord{Lsn: uint64(lsn + 2), Payload: []byte("p"), Checksum: logs.Checksum([]byte("p"))}},
	} {
		w, c, tr := beyondWorld()
		hurtBy(c, x.hurt)
		tr.acked[lsn], tr.acked[lsn+2] = []string{"p"}, []string{"r"}
		tr.loss(tr.newReading("r", logs.LSNOldest, logs.LSNMax, false), gap)
		if x.record != nil {
			tr.present(c.members[2], &wire.RecordsResponse{Records: []*wire.LogRecord{x.record}}, "r")
		}
		if w.Failed() != x.red {
			t.Errorf("%s: failed %v", name, w.Failed())
		}
	}
}

// TestSilenceIsJudged: what was acknowledged is not passed over, whatever was lost; only
// where a disk lost its last, and nobody else has it, is that no news.
func TestSilenceIsJudged(t *testing.T) {
	lsn := logs.MakeLSN(1, 5)
	for name, x := range map[string]struct {
		kinds   []string // of those who had it
		tail    bool     // it was the last of those that lost their tails
		stream  bool     // it is of a stream
		before  bool     // the one before it was the last of those that lost their tails
		good    bool     // recovery knew that one to be stored
		exposed bool
	}{
		"damaged":             {kinds: []string{faultVouched, faultVouched}},
		"given up":            {kinds: []string{faultGiven, faultGiven}},
		"last":                {kinds: []string{faultTails, faultTails}, tail: true, exposed: true},
		"not last":            {kinds: []string{faultTails, faultTails}},
		"last, and in order":  {kinds: []string{faultTails, ""}, tail: true},
		"last, and given up":  {kinds: []string{faultTails, faultGiven}, tail: true, exposed: true},
		"nobody is to blame":  {kinds: []string{"", ""}},
		"nobody was given it": {},
		"behind the last":     {kinds: []string{faultTails, faultTails}, before: true},
		"behind, of a stream": {kinds: []string{faultTails, faultTails}, before: true, stream: true, exposed: true},
		"known to be good":    {kinds: []string{faultTails, faultTails}, before: true, stream: true, good: true},
		"of a stream":         {kinds: []string{faultTails, faultTails}, stream: true},
	} {
		w, c, tr := beyondWorld()
		for i, kind := range x.kinds {
			c.members[i].hurt.kind = kind
			tr.gets(lsn, c.members[i], true)
			tr.keeps(lsn, c.members[i])
			tr.gets(lsn-1, c.members[i], true)
			tr.keeps(lsn-1, c.members[i])
			if kind == faultTails {
				c.members[i].hurt.tail = map[place]bool{{tr.id, lsn}: x.tail, {tr.id, lsn - 1}: x.before}
			}
		}
		tr.stream[lsn] = x.stream
		if x.good {
			tr.closes(&wire.CleanRequest{Epoch: 1, SealEpoch: 1, LastKnownGood: uint32(lsn.ESN() - 1), Last: uint32(lsn.ESN() - 1)})
		}
		tr.gets(lsn, c.members[2], true) // it never came, and a bridge did
		tr.gets(lsn, c.members[2], false)
		tr.keeps(lsn, c.members[2])
		tr.acked[lsn] = []string{"p"}
		tr.gap(tr.newReading("r", logs.LSNOldest, logs.LSNMax, false), &reader.Item{LSN: lsn - 1, To: logs.MakeLSN(2, 0), Gap: logs.GapBridge})
		if !w.Failed() || w.Exposed() != x.exposed {
			t.Errorf("%s: failed %v, exposed %v", name, w.Failed(), w.Exposed())
		}
	}
}

// TestAnAppendBegunAnewIsJudged: a payload that was read, and of which its client has no
// answer, is there once more only if nobody has the first one.
func TestAnAppendBegunAnewIsJudged(t *testing.T) {
	at, again := logs.MakeLSN(1, 5), logs.MakeLSN(2, 1)
	there := &wire.LogRecord{Lsn: uint64(at), Payload: []byte("p"), Checksum: logs.Checksum([]byte("p"))}
	rotten := &wire.LogRecord{Lsn: uint64(at), Payload: []byte("q"), Checksum: logs.Checksum([]byte("p"))}
	hole := &wire.LogRecord{Lsn: uint64(at), Flags: logs.FlagHole}
	for name, x := range map[string]struct {
		kinds []string // of those who had it
		tail  bool     // it was the last of those that lost their tails
		has   *wire.LogRecord
		acked bool // its client had an answer
		red   bool
	}{
		"nobody lost anything":      {kinds: []string{"", ""}, red: true},
		"one is in order":           {kinds: []string{faultVouched, ""}, red: true},
		"damaged":                   {kinds: []string{faultVouched, faultVouched}},
		"damaged, and answered":     {kinds: []string{faultVouched, faultVouched}, acked: true, red: true},
		"damaged, and one has it":   {kinds: []string{faultVouched, faultVouched}, has: there, red: true},
		"damaged, and it is a hole": {kinds: []string{faultVouched, faultVouched}, has: hole},
		"damaged, and one cannot":   {kinds: []string{faultVouched, faultRot}, has: rotten},
		"last":                      {kinds: []string{faultTails, faultTails}, tail: true},
		"last, and damaged":         {kinds: []string{faultTails, faultVouched}, tail: true, has: there},
		"not last":                  {kinds: []string{faultTails, faultTails}, red: true},
		"not last, and given up":    {kinds: []string{faultTails, faultGiven}, red: true},
	} {
		for _, how := range []string{"acknowledged", "read"} {
			w, c, tr := beyondWorld()
			for i, kind := range x.kinds {
				c.members[i].hurt.kind = kind
				tr.gets(at, c.members[i], true)
				tr.keeps(at, c.members[i])
				if kind == faultTails && x.tail {
					c.members[i].hurt.tail = map[place]bool{{tr.id, at}: true}
				}
			}
			tr.begins("p", 0)
			tr.told[at], tr.where["p"] = []string{"p"}, at
			if x.acked {
				tr.acked[at] = []string{"p"}
			}
			if how == "read" {
				tr.found("p", again)
			} else {
				tr.acknowledged("p", again)
			}
			if x.has != nil && !tr.exposed(at) {
				tr.survives(c.members[0], &wire.RecordsResponse{Records: []*wire.LogRecord{x.has}}, "p")
			}
			if w.Failed() != x.red {
				t.Errorf("%s, %s: failed %v", name, how, w.Failed())
			}
		}
	}
}

// TestWhatADiskLostNoPurgeTakes: a disk that lost a record as its last, and was not of the
// recovery, is why nobody can tell that there was one.
func TestWhatADiskLostNoPurgeTakes(t *testing.T) {
	at := logs.MakeLSN(1, 5)
	_, c, tr := beyondWorld()
	for _, m := range c.members[:2] {
		tr.gets(at, m, true)
		tr.keeps(at, m)
	}
	c.members[0].hurt = hurt{kind: faultTails, tail: map[place]bool{{tr.id, at}: true}}
	c.members[1].hurt.kind = faultVouched
	tr.closes(&wire.CleanRequest{Epoch: 1, SealEpoch: 1, LastKnownGood: 3, Last: 4, Absent: []uint64{1 << 8}})
	if !tr.exposed(at) {
		t.Errorf("it was stored on %v", tr.holding(at))
	}
}

// TestWhatAPurgeTakesIsOnOthers: a record that a recovery has stored without a shard that had
// it is lost with those that had it then; where the recovery made a hole of it, or knew it to
// be good, that shard should have it.
func TestWhatAPurgeTakesIsOnOthers(t *testing.T) {
	at, again := logs.MakeLSN(1, 5), logs.MakeLSN(2, 1)
	for name, x := range map[string]struct {
		good   uint32
		hole   bool
		absent []uint64
		red    bool
	}{
		"all were of the recovery":    {good: 4, red: true},
		"the one in order was not":    {good: 4, absent: []uint64{1 << 8}},
		"and it was known to be good": {good: 5, absent: []uint64{1 << 8}, red: true},
		"and it became a hole":        {good: 4, hole: true, absent: []uint64{1 << 8}, red: true},
	} {
		w, c, tr := beyondWorld()
		for _, m := range c.members[:2] {
			tr.gets(at, m, true)
			tr.keeps(at, m)
		}
		for _, m := range c.members[1:] { // by recovery
			tr.gets(at, m, !x.hole)
			tr.keeps(at, m)
			m.hurt.kind = faultVouched
		}
		tr.closes(&wire.CleanRequest{Epoch: 1, SealEpoch: 1, LastKnownGood: x.good, Last: 6, Absent: x.absent})
		tr.begins("p", 0)
		tr.told[at], tr.where["p"] = []string{"p"}, at
		tr.found("p", again)
		if w.Failed() != x.red {
			t.Errorf("%s: failed %v", name, w.Failed())
		}
	}
}

// TestAStandstillIsJudged: a log that does not answer has to have a reason.
func TestAStandstillIsJudged(t *testing.T) {
	_, c, tr := beyondWorld()
	tr.last = tr.newReading("last", logs.LSNOldest, logs.LSNMax, false)
	if why := c.standsStill(tr); why != "its readers: starting, silent []" {
		t.Errorf("a reader without metadata: %q", why)
	}
	tr.last.core.Step(time.Second, reader.Begin{})
	tr.last.core.Step(time.Second, reader.Metadata{Entries: tr.metadata, Through: 1})
	if why := c.standsStill(tr); why != "no node sequences it" {
		t.Errorf("nobody reigns: %q", why)
	}
	if err := c.stands(tr); err != nil {
		t.Errorf("that is a reason: %v", err)
	}
	if why := troubleOf(&sequencer.Row{}); why != "" {
		t.Errorf("a sequencer that is well is no reason: %q", why)
	}
}

// TestARecoveryMayWaitForMetadata: where nodes are struck that may alone have an entry of its
// metadata log, a log that lost nothing may wait for it, and its recovery says so.
func TestARecoveryMayWaitForMetadata(t *testing.T) {
	_, c, tr := beyondWorld()
	long := recovery.Row{Log: tr.id, State: "METADATA", For: serveTime + time.Second}
	for name, x := range map[string]struct {
		row  recovery.Row
		hurt int
		may  bool
	}{
		"as many as copies":    {row: long, hurt: 2, may: true},
		"fewer":                {row: long, hurt: 1},
		"not long":             {row: recovery.Row{Log: tr.id, State: "METADATA", For: time.Second}, hurt: 2},
		"of another log":       {row: recovery.Row{Log: tr.id + 1, State: "METADATA", For: serveTime + time.Second}, hurt: 2},
		"it waits for a shard": {row: recovery.Row{Log: tr.id, State: "SEALING", For: serveTime + time.Second}, hurt: 2},
	} {
		for i, m := range c.members {
			m.hurt.kind = ""
			if i < x.hurt {
				m.hurt.kind = faultTails
			}
		}
		if may := c.metadataStruck(tr) && tr.looksForMetadata([]recovery.Row{x.row}); may != x.may {
			t.Errorf("%s: %v", name, may)
		}
	}
}
