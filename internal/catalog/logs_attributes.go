package catalog

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Bounds of log attributes.
const (
	LogCopiesMax       = 127 // of a record; and shards of a nodeset
	LogPayloadBytesMax = 32 << 20
	LogWindowMin       = 2
	LogWindowMax       = 1 << 16

	logBatchingTimeMax = 60_000 // ms
	logLocationLenMax  = 255
)

// builtInLogAttributes are what a log has where nobody says otherwise.
//
// Two differ from LogDevice, where both are off. Sticky copysets keep the STOREs
// of many records on the same R nodes, so that they share messages and fsyncs;
// blocks are changed often enough to spread the load. Single-copy delivery is
// what makes a reader cost one copy rather than R; that a shard is silent is
// found out and undone by a rewind, not by sending everything always.
//
// A nodeset size of 0 leaves it to the selector, which knows the cluster.
func builtInLogAttributes() *LogAttributes {
	return &LogAttributes{
		Replication:                       &Replication{Node: 2},
		NodesetSize:                       new(uint32(0)),
		MaxWritesInFlight:                 new(uint32(1000)),
		MaxPayloadBytes:                   new(uint32(1 << 20)),
		StickyCopysets:                    new(true),
		SingleCopyDelivery:                new(true),
		SequencerBatching:                 new(false),
		SequencerBatchingTimeMs:           new(uint32(1000)),
		SequencerBatchingBytes:            new(uint32(1 << 20)),
		SequencerBatchingPassthroughBytes: new(uint32(64 << 10)),
		SequencerBatchingCompression:      new(Compression_COMPRESSION_ZSTD),
		BacklogMs:                         new(int64(0)),
		Durability:                        new(Durability_DURABILITY_FSYNC),
		CreateOnAppend:                    new(false),
		SequencerAffinity:                 new(""),
	}
}

// LogAttribute describes one attribute: its name and how it is moved between
// messages and text.
type LogAttribute struct {
	Name string
	Help string

	isSet  func(a *LogAttributes) bool
	take   func(dst, src *LogAttributes) // also what is not set
	format func(a *LogAttributes) string
	parse  func(a *LogAttributes, s string) error
}

// IsSet says whether a has the attribute itself.
func (d *LogAttribute) IsSet(a *LogAttributes) bool { return a != nil && d.isSet(a) }

// Format prints the attribute's value; a has it.
func (d *LogAttribute) Format(a *LogAttributes) string { return d.format(a) }

// Parse sets the attribute to what Format prints, or people write.
func (d *LogAttribute) Parse(a *LogAttributes, s string) error {
	if err := d.parse(a, strings.TrimSpace(s)); err != nil {
		return logError(LogInvalidAttributes, d.Name, "%v", err)
	}
	return nil
}

// optional describes an attribute that is a pointer to its value.
func optional[T any](name, help string, at func(*LogAttributes) **T, format func(T) string, parse func(string) (T, error)) *LogAttribute {
	return &LogAttribute{
		Name: name, Help: help,
		isSet:  func(a *LogAttributes) bool { return *at(a) != nil },
		take:   func(dst, src *LogAttributes) { *at(dst) = *at(src) },
		format: func(a *LogAttributes) string { return format(**at(a)) },
		parse: func(a *LogAttributes, s string) error {
			v, err := parse(s)
			if err == nil {
				*at(a) = &v
			}
			return err
		},
	}
}

// logAttributes is every attribute there is, in the order in which they are shown.
var logAttributes = []*LogAttribute{
	{
		Name: "replication", Help: "copies, and over how many domains of each scope: node:3,rack:2",
		isSet:  func(a *LogAttributes) bool { return a.Replication != nil },
		take:   func(dst, src *LogAttributes) { dst.Replication = src.Replication },
		format: func(a *LogAttributes) string { return FormatReplication(a.Replication) },
		parse: func(a *LogAttributes, s string) (err error) {
			a.Replication, err = parseReplication(s)
			return err
		},
	},
	optional("nodeset_size", "shards that an epoch may use; 0: chosen by the cluster",
		func(a *LogAttributes) **uint32 { return &a.NodesetSize }, formatNumber, parseNumber),
	optional("max_writes_in_flight", "records of the sliding window",
		func(a *LogAttributes) **uint32 { return &a.MaxWritesInFlight }, formatNumber, parseNumber),
	optional("max_payload_bytes", "the largest record: 1MiB",
		func(a *LogAttributes) **uint32 { return &a.MaxPayloadBytes }, formatBytes, parseBytes),
	optional("sticky_copysets", "one copyset for a block of records",
		func(a *LogAttributes) **bool { return &a.StickyCopysets }, strconv.FormatBool, parseBool),
	optional("single_copy_delivery", "each record is sent to a reader by one shard",
		func(a *LogAttributes) **bool { return &a.SingleCopyDelivery }, strconv.FormatBool, parseBool),
	optional("sequencer_batching", "records of many writers share one LSN",
		func(a *LogAttributes) **bool { return &a.SequencerBatching }, strconv.FormatBool, parseBool),
	optional("sequencer_batching_time", "the longest a record waits for others: 1s",
		func(a *LogAttributes) **uint32 { return &a.SequencerBatchingTimeMs }, formatMillis, parseMillis),
	optional("sequencer_batching_bytes", "a batch of this size is appended at once",
		func(a *LogAttributes) **uint32 { return &a.SequencerBatchingBytes }, formatBytes, parseBytes),
	optional("sequencer_batching_passthrough_bytes", "a record of this size is appended by itself; 0: none is",
		func(a *LogAttributes) **uint32 { return &a.SequencerBatchingPassthroughBytes }, formatBytes, parseBytes),
	optional("sequencer_batching_compression", "none, lz4 or zstd",
		func(a *LogAttributes) **Compression { return &a.SequencerBatchingCompression }, formatCompression, parseCompression),
	optional("backlog", "how long records are kept, 15 minutes more at most: 72h, 7d, or forever",
		func(a *LogAttributes) **int64 { return &a.BacklogMs }, formatBacklog, parseBacklog),
	optional("durability", "fsync",
		func(a *LogAttributes) **Durability { return &a.Durability }, formatDurability, parseDurability),
	optional("create_on_append", "directories: a log that is appended to is made",
		func(a *LogAttributes) **bool { return &a.CreateOnAppend }, strconv.FormatBool, parseBool),
	optional("sequencer_affinity", "location where the sequencer should be: region/zone/rack",
		func(a *LogAttributes) **string { return &a.SequencerAffinity }, func(s string) string { return s },
		func(s string) (string, error) { return s, nil }),
}

// AllLogAttributes lists every attribute. The slice is shared: do not change it.
func AllLogAttributes() []*LogAttribute { return logAttributes }

// LogAttributeNamed finds an attribute.
func LogAttributeNamed(name string) (*LogAttribute, error) {
	for _, d := range logAttributes {
		if d.Name == name {
			return d, nil
		}
	}
	var names []string
	for _, d := range logAttributes {
		names = append(names, d.Name)
	}
	return nil, logError(LogInvalidAttributes, name, "is no attribute of logs: there are %s", strings.Join(names, ", "))
}

// overlay is what is set in over, and under it what is set in under. It is under
// itself where nothing is set over it, so that whole subtrees share one message.
func overlay(under, over *LogAttributes) *LogAttributes {
	var out *LogAttributes
	for _, d := range logAttributes {
		if !d.IsSet(over) {
			continue
		}
		if out == nil {
			out = shallowAttributes(under)
		}
		d.take(out, over)
	}
	if out == nil {
		return under
	}
	return out
}

// shallowAttributes copies the message and shares its values, which never change.
func shallowAttributes(a *LogAttributes) *LogAttributes {
	out := new(LogAttributes)
	if a != nil {
		for _, d := range logAttributes {
			d.take(out, a)
		}
	}
	return out
}

// without is a without some attributes, nil where none is left.
func (a *LogAttributes) without(names []string) *LogAttributes {
	out, left := new(LogAttributes), false
	for _, d := range logAttributes {
		if d.IsSet(a) && !slices.Contains(names, d.Name) {
			d.take(out, a)
			left = true
		}
	}
	if !left {
		return nil
	}
	return out
}

// complete puts the built-in attributes under what was set anywhere above a log.
// What nobody set gives way to what somebody did: a contradiction is between two
// things that were said.
func complete(set *LogAttributes) *LogAttributes {
	full := overlay(builtInLogAttributes(), set)
	if set.GetSequencerBatchingBytes() == 0 {
		full.SequencerBatchingBytes = new(min(full.GetSequencerBatchingBytes(), full.GetMaxPayloadBytes()))
	}
	return full
}

// CheckReplication says what is wrong with a replication property: nothing is
// asked for, too much, or more domains of a wide scope than of a narrower one.
func CheckReplication(r *Replication) error {
	scopes := []struct {
		name  string
		count uint32
	}{{"node", r.GetNode()}, {"rack", r.GetRack()}, {"zone", r.GetZone()}, {"region", r.GetRegion()}}
	narrow := -1
	for i, s := range scopes {
		switch {
		case s.count == 0:
			continue
		case s.count > LogCopiesMax:
			return fmt.Errorf("%s:%d: a record has at most %d copies", s.name, s.count, LogCopiesMax)
		case narrow >= 0 && s.count > scopes[narrow].count:
			return fmt.Errorf("%s:%d contradicts %s:%d: copies in %d places of a wide scope are in as many of every narrower one; raise %s to %d",
				s.name, s.count, scopes[narrow].name, scopes[narrow].count, s.count, scopes[narrow].name, s.count)
		}
		narrow = i
	}
	if narrow < 0 {
		return errors.New("no copies: write how many at which scope, such as node:2")
	}
	return nil
}

// Copies is how many copies a record has.
func (r *Replication) Copies() uint32 {
	return max(r.GetNode(), r.GetRack(), r.GetZone(), r.GetRegion())
}

// checkLogAttributes says what is wrong with what was set for a log, taken
// together with the built-in values.
func checkLogAttributes(set *LogAttributes) error {
	a := complete(set)
	if err := CheckReplication(a.Replication); err != nil {
		return fmt.Errorf("replication %w", err)
	}
	copies := a.Replication.Copies()
	switch n := a.GetNodesetSize(); {
	case n > LogCopiesMax:
		return fmt.Errorf("nodeset_size %d is above %d", n, LogCopiesMax)
	case n != 0 && n < copies:
		return fmt.Errorf("nodeset_size %d has no room for the %d copies of replication %s", n, copies, FormatReplication(a.Replication))
	}
	if w := a.GetMaxWritesInFlight(); w < LogWindowMin || w > LogWindowMax {
		return fmt.Errorf("max_writes_in_flight %d is not between %d and %d", w, LogWindowMin, LogWindowMax)
	}
	if p := a.GetMaxPayloadBytes(); p < 1 || p > LogPayloadBytesMax {
		return fmt.Errorf("max_payload_bytes %d is not between 1 and %d", p, LogPayloadBytesMax)
	}
	if err := checkBatching(a); err != nil {
		return err
	}
	if a.GetBacklogMs() < 0 {
		return fmt.Errorf("backlog %d ms is negative: 0 keeps records for ever", a.GetBacklogMs())
	}
	if d := a.GetDurability(); d != Durability_DURABILITY_FSYNC {
		return fmt.Errorf("durability %s is refused: until lost copies are rebuilt, only fsync keeps what was acknowledged", formatDurability(d))
	}
	return checkAffinity(a.GetSequencerAffinity())
}

func checkBatching(a *LogAttributes) error {
	if t := a.GetSequencerBatchingTimeMs(); t < 1 || t > logBatchingTimeMax {
		return fmt.Errorf("sequencer_batching_time %d ms is not between 1ms and 1m", t)
	}
	b := a.GetSequencerBatchingBytes()
	if b < 1 || b > a.GetMaxPayloadBytes() {
		return fmt.Errorf("sequencer_batching_bytes %d is not between 1 and max_payload_bytes, %d: a batch is one record", b, a.GetMaxPayloadBytes())
	}
	if Compression_name[int32(a.GetSequencerBatchingCompression())] == "" {
		return fmt.Errorf("sequencer_batching_compression %d is none of none, lz4 and zstd", a.GetSequencerBatchingCompression())
	}
	return nil
}

func checkAffinity(location string) error {
	if len(location) > logLocationLenMax || strings.Count(location, "/") > 2 || strings.ContainsFunc(location, func(r rune) bool { return r < ' ' }) {
		return fmt.Errorf("sequencer_affinity %q is not region/zone/rack", location)
	}
	return nil
}

// FormatReplication writes a replication as attributes are written: node:3,rack:2.
func FormatReplication(r *Replication) string {
	var parts []string
	for _, s := range []struct {
		name  string
		count uint32
	}{{"node", r.GetNode()}, {"rack", r.GetRack()}, {"zone", r.GetZone()}, {"region", r.GetRegion()}} {
		if s.count > 0 {
			parts = append(parts, s.name+":"+formatNumber(s.count))
		}
	}
	return strings.Join(parts, ",")
}

func parseReplication(s string) (*Replication, error) {
	r := new(Replication)
	for part := range strings.SplitSeq(s, ",") {
		scope, count, ok := strings.Cut(strings.TrimSpace(part), ":")
		n, err := strconv.ParseUint(strings.TrimSpace(count), 10, 32)
		if !ok || err != nil {
			return nil, fmt.Errorf("%q is not SCOPE:COUNT, such as node:2", part)
		}
		at := map[string]*uint32{"node": &r.Node, "rack": &r.Rack, "zone": &r.Zone, "region": &r.Region}[strings.TrimSpace(scope)]
		switch {
		case at == nil:
			return nil, fmt.Errorf("%q is none of the scopes node, rack, zone and region", scope)
		case *at != 0:
			return nil, fmt.Errorf("%s is given twice", scope)
		}
		*at = uint32(n)
	}
	return r, CheckReplication(r)
}

func formatNumber(n uint32) string { return strconv.FormatUint(uint64(n), 10) }

func parseNumber(s string) (uint32, error) {
	n, err := strconv.ParseUint(s, 10, 32)
	if err != nil {
		return 0, fmt.Errorf("%q is not a number", s)
	}
	return uint32(n), nil
}

func parseBool(s string) (bool, error) {
	switch s {
	case "true", "yes", "on":
		return true, nil
	case "false", "no", "off":
		return false, nil
	}
	return false, fmt.Errorf("%q is neither true nor false", s)
}

func formatBytes(n uint32) string {
	switch {
	case n > 0 && n%(1<<20) == 0:
		return formatNumber(n>>20) + "MiB"
	case n > 0 && n%(1<<10) == 0:
		return formatNumber(n>>10) + "KiB"
	}
	return formatNumber(n)
}

func parseBytes(s string) (uint32, error) {
	factor := uint64(1)
	for _, u := range []struct {
		suffix string
		factor uint64
	}{{"KiB", 1 << 10}, {"MiB", 1 << 20}, {"KB", 1e3}, {"MB", 1e6}} {
		if number, ok := strings.CutSuffix(s, u.suffix); ok {
			s, factor = strings.TrimSpace(number), u.factor
			break
		}
	}
	n, err := strconv.ParseUint(s, 10, 32)
	if err != nil || n*factor > 1<<32-1 {
		return 0, fmt.Errorf("%q is not a size: write 2MiB, 64KiB or a number of bytes", s)
	}
	return uint32(n * factor), nil
}

func formatMillis(ms uint32) string { return (time.Duration(ms) * time.Millisecond).String() }

func parseMillis(s string) (uint32, error) {
	d, err := time.ParseDuration(s)
	if err != nil || d < 0 || d%time.Millisecond != 0 || d.Milliseconds() > 1<<32-1 {
		return 0, fmt.Errorf("%q is not a time in whole milliseconds: write 500ms or 1s", s)
	}
	return uint32(d.Milliseconds()), nil
}

func formatBacklog(ms int64) string {
	const day = 24 * 3600 * 1000
	switch {
	case ms == 0:
		return "forever"
	case ms%day == 0:
		return strconv.FormatInt(ms/day, 10) + "d"
	case ms > int64(1<<63-1)/int64(time.Millisecond) || ms < 0:
		return strconv.FormatInt(ms, 10) + "ms"
	}
	return (time.Duration(ms) * time.Millisecond).String()
}

func parseBacklog(s string) (int64, error) {
	if s == "forever" || s == "0" {
		return 0, nil
	}
	if days, ok := strings.CutSuffix(s, "d"); ok {
		n, err := strconv.ParseInt(days, 10, 64)
		if err == nil && n >= 0 && n <= 1_000_000 {
			return n * 24 * 3600 * 1000, nil
		}
	} else if d, err := time.ParseDuration(s); err == nil && d > 0 && d%time.Millisecond == 0 {
		return d.Milliseconds(), nil
	}
	return 0, fmt.Errorf("%q is not a time: write 72h, 7d or forever", s)
}

func formatCompression(c Compression) string { return lower(c.String(), "COMPRESSION_") }

func parseCompression(s string) (Compression, error) {
	c, ok := Compression_value["COMPRESSION_"+strings.ToUpper(s)]
	if !ok {
		return 0, fmt.Errorf("%q is none of none, lz4 and zstd", s)
	}
	return Compression(c), nil
}

func formatDurability(d Durability) string { return lower(d.String(), "DURABILITY_") }

func parseDurability(s string) (Durability, error) {
	d, ok := Durability_value["DURABILITY_"+strings.ToUpper(s)]
	if !ok {
		return 0, fmt.Errorf("%q is not a durability: write fsync", s)
	}
	return Durability(d), nil
}
