package tablet

import (
	"encoding/binary"
	"fmt"
	"slices"
	"sort"
	"sync"
	"time"

	"github.com/braiddb/braid/internal/hlc"
)

// clientID names one client process.
type clientID [16]byte

// requestKey names one request of one client, for ever.
type requestKey struct {
	client clientID
	id     uint64
}

// requestLimits bounds what a tablet remembers.
type requestLimits struct {
	window  time.Duration // of hybrid time, after which a request is forgotten
	bytes   int64         // of memory, by recordBytes
	clients int
}

// defaultRequestLimits: 660 s is longer than any client retries (600 s is the
// longest a client of ours may be told to). 8 MiB hold about 100,000 requests
// that their clients have not yet declared answered.
var defaultRequestLimits = requestLimits{window: 660 * time.Second, bytes: 8 << 20, clients: 16 << 10}

const (
	// outcomeInlineMax is the longest outcome kept in memory; a longer one is
	// read back from the LSM by the rare retry that asks for it.
	outcomeInlineMax = 64
	// recordBytes is what a remembered request costs in memory, outcome aside:
	// a record, its place in the entry, and slack of the slices.
	recordBytes = 80
	// windowStep quantises the window, so that requests are forgotten by the
	// handful: every replica does it at the same entry.
	windowStep = 10 * time.Second
	// deadEntriesMax is how many records of forgotten requests stay on disk
	// before they are deleted together.
	deadEntriesMax = 256
)

// requests is what makes a retry get the original's answer: the outcomes of
// the requests that took effect, and, on a leader, who is being carried out.
//
//	clients ── client ── floor ── records sorted by request id
//	                                 │
//	entries ── entry (Raft index) ───┘   oldest first; one record on disk each
//	running ── (client, request) ── write
//
// What is remembered is replicated state: it is changed by apply alone, as a
// function of the entries, so every replica decides alike whether an entry
// holds a second copy of a request. The rules, applied after each entry:
//
//	Q1. A request is remembered from the entry that carried it out, and its
//	    record is in the same LSM batch as its effects.
//	Q2. A request below its client's floor is refused, never carried out. A
//	    floor only rises: to the client's first running request, or past a
//	    request that is forgotten for its age or for want of memory.
//	Q3. Forgotten first is what was remembered first.
//	Q4. A record is remembered if and only if it is not below its client's
//	    floor. So floors and records on disk give back the same state, and a
//	    record on disk may go once the floors that made it void are written.
//	Q5. A client is forgotten only when nothing of it is remembered and its
//	    last write is older than the window. If there are too many younger
//	    ones, new clients are refused (by the leader), not old ones forgotten.
type requests struct {
	limits requestLimits

	mu struct {
		sync.Mutex
		clients map[clientID]*clientRequests
		running map[requestKey]*write
		entries []*entryRequests // ascending by index; those without a live request are dropped lazily
		live    int              // requests remembered
		bytes   int64
		last    hlc.Timestamp         // of the last entry noted
		dead    []uint64              // indexes of entries whose record on disk is void
		voids   int                   // entries in entries that hold nothing live
		changed map[clientID]struct{} // floors that differ from those on disk
		gone    []clientID            // clients forgotten since the last collect
		shared  []byte                // the outcome noted last, shared by equal ones
	}
}

type clientRequests struct {
	id      clientID
	floor   uint64
	last    hlc.Timestamp
	records []record // ascending by id, all >= floor (Q4)
}

type record struct {
	id      uint64
	entry   *entryRequests
	outcome []byte // nil: on disk, under entry.index
}

type entryRequests struct {
	index uint64
	time  hlc.Timestamp
	live  int // requests remembered, and one until the entry has joined the queue
	refs  []requestRef
}

type requestRef struct {
	client *clientRequests
	id     uint64
}

func newRequests(limits requestLimits) *requests {
	r := &requests{limits: limits}
	r.mu.clients = make(map[clientID]*clientRequests)
	r.mu.running = make(map[requestKey]*write)
	r.mu.changed = make(map[clientID]struct{})
	return r
}

// standing is what a tablet knows about a request.
type standing uint8

const (
	standingNew        standing = iota // never seen: carry it out
	standingRemembered                 // carried out: answer the original
	standingRunning                    // being carried out: wait for that
	standingExpired                    // below the floor: refuse
	standingRefused                    // of a client that there is no room for
)

// remembered is the answer that a retry gets.
type remembered struct {
	index   uint64
	time    hlc.Timestamp
	outcome []byte // nil: on disk
	running *write // with standingRunning
}

// begin registers w as the one that carries out its request, or tells why not.
// running is looked at before what is remembered: apply notes an entry before
// it has committed it, and a retry must not be answered between the two.
func (r *requests) begin(w *write) (standing, remembered) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if original := r.mu.running[w.key]; original != nil {
		original.attached = append(original.attached, w)
		return standingRunning, remembered{running: original}
	}
	s, found := r.standingLocked(w.key)
	if s != standingNew {
		return s, found
	}
	if r.mu.clients[w.key.client] == nil && len(r.mu.clients) >= r.limits.clients {
		return standingRefused, remembered{}
	}
	r.mu.running[w.key] = w
	return standingNew, remembered{}
}

// end takes w off the running requests and gives who attached to it.
func (r *requests) end(w *write) []*write {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.mu.running[w.key] == w {
		delete(r.mu.running, w.key)
	}
	attached := w.attached
	w.attached = nil
	return attached
}

// standing is what replicated state says of a request.
func (r *requests) standing(k requestKey) (standing, remembered) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.standingLocked(k)
}

func (r *requests) standingLocked(k requestKey) (standing, remembered) {
	c := r.mu.clients[k.client]
	if c == nil {
		return standingNew, remembered{}
	}
	if k.id < c.floor {
		return standingExpired, remembered{}
	}
	if at, ok := c.find(k.id); ok {
		rec := &c.records[at]
		return standingRemembered, remembered{index: rec.entry.index, time: rec.entry.time, outcome: rec.outcome}
	}
	return standingNew, remembered{}
}

// find gives the place of id among the records, and whether it is there. Ids
// come nearly in order, so it looks from the end.
func (c *clientRequests) find(id uint64) (int, bool) {
	n := len(c.records)
	if n == 0 || c.records[n-1].id < id {
		return n, false
	}
	at := sort.Search(n, func(i int) bool { return c.records[i].id >= id })
	return at, c.records[at].id == id
}

// entryNotes collects what one entry makes the tablet remember. The zero value
// is ready; it is reused from entry to entry.
type entryNotes struct {
	entry *entryRequests
	disk  []byte // the entry's record, see appendRequest
	count int
}

// begin starts an entry.
func (n *entryNotes) begin() { n.entry, n.disk, n.count = nil, n.disk[:0], 0 }

// note remembers one request of an entry; the caller has found it standingNew.
func (r *requests) note(n *entryNotes, index uint64, at hlc.Timestamp, p *payload) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if n.entry == nil {
		n.entry = &entryRequests{index: index, time: at, live: 1}
	}
	n.disk = appendRequest(n.disk, p.request, p.firstRunning, p.outcome)
	n.count++
	r.noteLocked(n.entry, p.request, p.firstRunning, p.outcome)
}

func (r *requests) noteLocked(e *entryRequests, k requestKey, firstRunning uint64, result []byte) {
	c := r.clientLocked(k.client)
	c.last = e.time
	r.raiseLocked(c, firstRunning)
	if k.id < c.floor {
		return // only while loading: its floor was written after it
	}
	at, _ := c.find(k.id)
	c.records = append(c.records, record{})
	copy(c.records[at+1:], c.records[at:])
	c.records[at] = record{id: k.id, entry: e, outcome: r.keepLocked(result)}
	e.live++
	e.refs = append(e.refs, requestRef{c, k.id})
	r.mu.live++
	r.mu.bytes += c.records[at].bytes()
}

// keepLocked copies a short outcome for keeping; most are equal to the one before.
func (r *requests) keepLocked(o []byte) []byte {
	if len(o) > outcomeInlineMax {
		return nil
	}
	if string(r.mu.shared) != string(o) || r.mu.shared == nil {
		r.mu.shared = append(make([]byte, 0, len(o)), o...)
	}
	return r.mu.shared
}

func (rec *record) bytes() int64 { return recordBytes + int64(len(rec.outcome)) }

func (r *requests) clientLocked(id clientID) *clientRequests {
	c := r.mu.clients[id]
	if c == nil {
		c = &clientRequests{id: id}
		r.mu.clients[id] = c
	}
	return c
}

// raiseLocked lifts a floor and forgets what falls below it (Q2, Q4).
func (r *requests) raiseLocked(c *clientRequests, floor uint64) {
	if floor <= c.floor {
		return
	}
	c.floor = floor
	r.mu.changed[c.id] = struct{}{}
	n := 0
	for n < len(c.records) && c.records[n].id < floor {
		rec := &c.records[n]
		r.mu.live--
		r.mu.bytes -= rec.bytes()
		r.leaveLocked(rec.entry)
		*rec = record{}
		n++
	}
	if n > 0 {
		c.records = c.records[n:]
	}
}

// noted ends an entry: what it remembered joins the queue, and the bounds are
// applied. Every replica does this for every entry, in order.
func (r *requests) noted(n *entryNotes, at hlc.Timestamp) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if n.entry != nil {
		r.joinLocked(n.entry)
		n.entry = nil
	}
	r.boundLocked(at)
}

func (r *requests) joinLocked(e *entryRequests) {
	r.mu.entries = append(r.mu.entries, e)
	r.leaveLocked(e)
}

// leaveLocked takes one live request off an entry.
func (r *requests) leaveLocked(e *entryRequests) {
	if e.live--; e.live == 0 {
		r.mu.dead = append(r.mu.dead, e.index)
		r.mu.voids++
		e.refs = nil
	}
}

// boundLocked is Q3 and Q5.
func (r *requests) boundLocked(at hlc.Timestamp) {
	before, after := windowFloor(r.mu.last, r.limits.window), windowFloor(at, r.limits.window)
	r.mu.last = max(r.mu.last, at)
	for len(r.mu.entries) > 0 {
		e := r.mu.entries[0]
		if e.live > 0 && e.time >= after && r.mu.bytes <= r.limits.bytes {
			break
		}
		for _, ref := range e.refs {
			if _, ok := ref.client.find(ref.id); ok {
				r.raiseLocked(ref.client, ref.id+1)
			}
		}
		r.mu.entries[0] = nil
		r.mu.entries = r.mu.entries[1:]
		r.mu.voids--
	}
	if r.mu.voids > 64 && r.mu.voids > len(r.mu.entries)/2 {
		r.compactLocked()
	}
	if after > before && len(r.mu.clients) > r.limits.clients/2 {
		r.forgetClientsLocked(after)
	}
}

// windowFloor is the time before which requests are forgotten at time t.
func windowFloor(t hlc.Timestamp, window time.Duration) hlc.Timestamp {
	us := t.Micros() - window.Microseconds()
	if us <= 0 {
		return 0
	}
	return hlc.FromMicros(us - us%windowStep.Microseconds())
}

// compactLocked drops entries that hold nothing from the middle of the queue:
// one request that a dead client left behind must not keep all after it.
func (r *requests) compactLocked() {
	kept := make([]*entryRequests, 0, len(r.mu.entries)-r.mu.voids)
	for _, e := range r.mu.entries {
		if e.live > 0 {
			kept = append(kept, e)
		}
	}
	r.mu.entries, r.mu.voids = kept, 0
}

func (r *requests) forgetClientsLocked(before hlc.Timestamp) {
	for id, c := range r.mu.clients {
		if len(c.records) == 0 && c.last < before {
			delete(r.mu.clients, id)
			delete(r.mu.changed, id)
			r.mu.gone = append(r.mu.gone, id)
		}
	}
}

// garbage is what collect wants written and deleted in the next batch.
type garbage struct {
	floors  []clientFloor // write these first (Q4)
	clients []clientID    // delete their floors
	entries []uint64      // delete their records; ascending
	// firstLive is the index of the first entry with a live request, or one past
	// the last of entries: every record below it is void.
	firstLive uint64
}

type clientFloor struct {
	id    clientID
	floor uint64
	last  hlc.Timestamp
}

// collect gives the garbage once there is enough of it, or as soon as a client
// was forgotten: no void record of it may be left to bring it back at a restart.
func (r *requests) collect() (garbage, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.mu.dead) < deadEntriesMax && len(r.mu.gone) == 0 {
		return garbage{}, false
	}
	g := garbage{clients: r.mu.gone, entries: r.mu.dead}
	for id := range r.mu.changed {
		c := r.mu.clients[id]
		g.floors = append(g.floors, clientFloor{id, c.floor, c.last})
	}
	clear(r.mu.changed)
	r.mu.gone, r.mu.dead = nil, nil
	sort.Slice(g.floors, func(i, j int) bool { return string(g.floors[i].id[:]) < string(g.floors[j].id[:]) })
	slices.Sort(g.entries)
	for _, e := range r.mu.entries {
		if e.live > 0 {
			g.firstLive = e.index
			return g, true
		}
	}
	if n := len(g.entries); n > 0 {
		g.firstLive = g.entries[n-1] + 1
	}
	return g, true
}

// counts tells how much is remembered.
func (r *requests) counts() (clients, live, running int, bytes int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.mu.clients), r.mu.live, len(r.mu.running), r.mu.bytes
}

// Loading, at open and after a snapshot: all floors, then all records in the
// order of their entries, then the applied hybrid time.

func (r *requests) loadFloor(f clientFloor) {
	r.mu.Lock()
	defer r.mu.Unlock()
	c := r.clientLocked(f.id)
	c.floor, c.last = max(c.floor, f.floor), max(c.last, f.last)
}

func (r *requests) loadEntry(index uint64, data []byte) error {
	at, list, err := decodeRequests(data)
	if err != nil {
		return fmt.Errorf("remembered requests of entry %d: %w", index, err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	e := &entryRequests{index: index, time: at, live: 1}
	for _, q := range list {
		r.noteLocked(e, q.key, q.firstRunning, q.outcome)
	}
	r.joinLocked(e)
	r.boundLocked(at)
	return nil
}

func (r *requests) loaded(at hlc.Timestamp) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.boundLocked(at)
}

// The record of an entry, and a client's floor, as they are on disk.

const requestsVersion = 1

type rememberedRequest struct {
	key          requestKey
	firstRunning uint64
	outcome      []byte
}

func appendRequestsHeader(b []byte, at hlc.Timestamp, count int) []byte {
	b = append(b, requestsVersion)
	b = binary.BigEndian.AppendUint64(b, uint64(at))
	return binary.AppendUvarint(b, uint64(count))
}

func appendRequest(b []byte, k requestKey, firstRunning uint64, result []byte) []byte {
	b = append(b, k.client[:]...)
	b = binary.AppendUvarint(b, k.id)
	b = binary.AppendUvarint(b, k.id-firstRunning)
	return appendBytes(b, result)
}

// requestBytesMin is the least a request takes in a record.
const requestBytesMin = len(clientID{}) + 3

// decodeRequests aliases data.
func decodeRequests(data []byte) (at hlc.Timestamp, list []rememberedRequest, err error) {
	d := decoder{data: data}
	if v := d.byte(); d.err == nil && v != requestsVersion {
		return 0, nil, fmt.Errorf("%w: version %d, this node reads %d", ErrFormat, v, requestsVersion)
	}
	at = hlc.Timestamp(d.uint64())
	n := d.uvarint()
	if n > uint64(len(d.data)/requestBytesMin) {
		d.fail("number of requests")
		n = 0
	}
	list = make([]rememberedRequest, 0, n)
	for range n {
		var q rememberedRequest
		copy(q.key.client[:], d.take(len(clientID{})))
		q.key.id = d.uvarint()
		back := d.uvarint()
		if back > q.key.id {
			d.fail("first running request")
		}
		q.firstRunning = q.key.id - back
		q.outcome = d.bytes()
		list = append(list, q)
	}
	d.end()
	return at, list, d.err
}

func (f clientFloor) append(b []byte) []byte {
	b = append(b, requestsVersion)
	b = binary.BigEndian.AppendUint64(b, f.floor)
	return binary.BigEndian.AppendUint64(b, uint64(f.last))
}

func decodeFloor(id, data []byte) (clientFloor, error) {
	d := decoder{data: data}
	if v := d.byte(); d.err == nil && v != requestsVersion {
		return clientFloor{}, fmt.Errorf("%w: version %d, this node reads %d", ErrFormat, v, requestsVersion)
	}
	f := clientFloor{floor: d.uint64(), last: hlc.Timestamp(d.uint64())}
	d.end()
	if len(id) != len(f.id) {
		d.fail("client id")
	}
	copy(f.id[:], id)
	return f, d.err
}
