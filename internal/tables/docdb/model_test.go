package docdb

import (
	"bytes"
	"cmp"
	"fmt"
	"maps"
	"slices"

	"github.com/braiddb/braid/internal/hlc"
)

// A plain model of a tablet: every document as it was after every entry.

type modelKey struct {
	hash uint64
	key  string
}

type modelChild struct {
	value      string
	expireAtMs int64
}

type modelDoc struct {
	kind       RootKind
	count      int64
	expireAtMs int64
	value      string
	children   map[string]modelChild
}

func (d *modelDoc) clone() *modelDoc {
	c := *d
	c.children = maps.Clone(d.children)
	return &c
}

// over reports whether what expires at a time is gone.
func over(expireAtMs, nowMs int64) bool { return expireAtMs > 0 && nowMs >= expireAtMs }

// alive reports whether the document can be seen at a time.
func (d *modelDoc) alive(nowMs int64) bool {
	return d != nil && !over(d.expireAtMs, nowMs)
}

// subs lists the children that can be seen, in order.
func (d *modelDoc) subs(nowMs int64) []string {
	var out []string
	for sub, c := range d.children {
		if !over(c.expireAtMs, nowMs) {
			out = append(out, sub)
		}
	}
	slices.Sort(out)
	return out
}

// render is a document as a view at nowMs shows it.
func (d *modelDoc) render(nowMs int64) string {
	s := fmt.Sprintf("kind %d count %d expires %d value %.20q/%d", d.kind, d.count, d.expireAtMs, d.value, len(d.value))
	for _, sub := range d.subs(nowMs) {
		s += fmt.Sprintf(" %q=%.20q/%d", sub, d.children[sub].value, len(d.children[sub].value))
	}
	return s
}

// model is the history of one tablet.
type model struct {
	times []hlc.Timestamp
	docs  map[modelKey][]*modelDoc // parallel to times; nil where there is none
	now   map[modelKey]*modelDoc   // with the entry being made; nil: deleted
}

func newModel() *model {
	return &model{docs: map[modelKey][]*modelDoc{}, now: map[modelKey]*modelDoc{}}
}

// commit closes the entry that is being made.
func (m *model) commit(at hlc.Timestamp) {
	m.times = append(m.times, at)
	for k, d := range m.now {
		if m.docs[k] == nil {
			m.docs[k] = make([]*modelDoc, len(m.times)-1)
		}
		m.docs[k] = append(m.docs[k], d)
		if d != nil {
			m.now[k] = d.clone() // what was committed is not to change
		}
	}
}

// at gives the documents that can be seen at a time.
func (m *model) at(t hlc.Timestamp) map[modelKey]*modelDoc {
	n := 0
	for n < len(m.times) && m.times[n] <= t {
		n++
	}
	out := map[modelKey]*modelDoc{}
	for k, versions := range m.docs {
		if n > 0 && versions[n-1].alive(t.Millis()) {
			out[k] = versions[n-1]
		}
	}
	return out
}

func sortedKeys(docs map[modelKey]*modelDoc) []modelKey {
	return slices.SortedFunc(maps.Keys(docs), func(a, b modelKey) int {
		return cmp.Or(cmp.Compare(a.hash, b.hash), bytes.Compare([]byte(a.key), []byte(b.key)))
	})
}
