package sim

import "time"

// Net carries messages between nodes. A link is directed.
type Net struct {
	w     *World
	nodes int
	links []link // by from*(nodes+1)+to
}

type link struct {
	cuts    int           // how many faults cut it now
	clogged time.Duration // nothing arrives before
	epoch   uint64        // of its connection: what was sent in an earlier one is lost
	last    time.Duration // when the latest of this link arrives, where links keep order
	base    time.Duration // delay of its own
}

func (t *Net) init(w *World, nodes int) {
	t.w, t.nodes = w, nodes
	t.links = make([]link, (nodes+1)*(nodes+1))
	for i := range t.links {
		t.links[i].base = w.Between(time.Duration(w.Opt.Net.DelayMin), time.Duration(w.Opt.Net.DelayMax))
	}
}

func (t *Net) link(from, to int) *link { return &t.links[from*(t.nodes+1)+to] }

// Reaches says that what is sent now would not be cut off.
func (t *Net) Reaches(from, to int) bool { return t.link(from, to).cuts == 0 }

// send is Node.Send. Node 0 stands for the clients: they have links too.
func (t *Net) send(from, to int, what string, size int, f func()) {
	if to < 1 || to > t.nodes {
		return
	}
	w, l, o := t.w, t.link(from, to), &t.w.Opt.Net
	copies := 1
	if !w.calm {
		if w.OneIn(o.LoseOneIn) {
			copies = 0
		} else if w.OneIn(o.DoubleOneIn) {
			copies = 2
		}
	}
	for range copies {
		d := l.base + w.Between(0, time.Duration(o.Jitter)) + time.Duration(size)*time.Duration(o.PerKiB)/1024
		if !w.calm && w.OneIn(o.LateOneIn) {
			d = w.Between(0, time.Duration(o.Late))
		}
		at := max(w.now+d, l.clogged)
		if o.Ordered {
			at = max(at, l.last)
			l.last = at
		}
		e := w.at(at, what, to, f)
		e.link, e.epoch = l, l.epoch
	}
}

// ToNode carries a client's request to a node.
func (t *Net) ToNode(to int, what string, size int, f func()) { t.send(0, to, what, size, f) }

// ToClient carries an answer of a node to a client, who is never dead.
func (t *Net) ToClient(from int, what string, f func()) {
	w, l, o := t.w, t.link(from, 0), &t.w.Opt.Net
	if !w.calm && w.OneIn(o.LoseOneIn) {
		return
	}
	d := l.base + w.Between(0, time.Duration(o.Jitter))
	if !w.calm && w.OneIn(o.LateOneIn) {
		d = w.Between(0, time.Duration(o.Late))
	}
	e := w.at(max(w.now+d, l.clogged), what, 0, f)
	e.link, e.epoch = l, l.epoch
}

// Cut cuts a directed link until Mend, or until the world heals: for wings whose
// faults end with something that happens and not at a time.
func (t *Net) Cut(from, to int) { t.cut(from, to) }

// Mend undoes one Cut.
func (t *Net) Mend(from, to int) {
	if !t.w.calm {
		t.mend(from, to)
	}
}

// cut cuts a directed link; undo it with mend.
func (t *Net) cut(from, to int)  { t.link(from, to).cuts++ }
func (t *Net) mend(from, to int) { t.link(from, to).cuts = max(0, t.link(from, to).cuts-1) }

func (t *Net) clog(from, to int, until time.Duration) {
	l := t.link(from, to)
	l.clogged = max(l.clogged, until)
}

// reset breaks the connections between two nodes, or of one with all (b 0):
// what is on its way is lost.
func (t *Net) reset(a, b int) {
	for x := 0; x <= t.nodes; x++ {
		if x != a && (b == 0 || x == b) {
			t.link(a, x).epoch++
			t.link(x, a).epoch++
		}
	}
}

func (t *Net) heal() {
	for i := range t.links {
		t.links[i].cuts, t.links[i].clogged = 0, 0
	}
}
