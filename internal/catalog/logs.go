package catalog

import (
	"fmt"
	"strings"

	"github.com/tidwall/btree"
)

// logRoot is the id of the root directory.
const logRoot = 1

// Logs is the log part of one version of a catalog, with what finds things in
// it. It never changes: a change (logs_change.go) makes another, which shares
// all that stayed, so that one more log in a hundred thousand costs the path to
// it and not all of them.
//
//	"/" ──── directory "events" ──── group "clicks"  [17, 20] [90, 93]
//	 │             │                     │              └ logs #0..#3, #4..#7
//	built-in,   attributes            attributes
//	cluster's         what is set nearest to a log counts
type Logs struct {
	version  uint64         // of the catalog when it last changed
	defaults *LogAttributes // the cluster's own, set at "/"
	nextLog  uint64         // C8
	nextItem uint64

	byID   *btree.BTreeG[*logItem] // by id, the root included
	byName *btree.BTreeG[*logItem] // by parent and name, the root left out
	spans  *btree.BTreeG[logSpan]  // by first id; disjoint (C8)
}

// logItem is a directory or a group with what it comes to. It never changes.
type logItem struct {
	dir   *LogDirectory
	group *LogGroup      // nil for a directory
	set   *LogAttributes // what is set here or anywhere above, the built-in ones left out
	full  *LogAttributes // set over the built-in ones: what a log here has
}

// logSpan is one range of ids of a group.
type logSpan struct {
	first, last uint64
	before      uint64 // logs of the group in earlier ranges
	item        *logItem
}

func (i *logItem) id() uint64 {
	if i.group != nil {
		return i.group.Id
	}
	return i.dir.GetId()
}

func (i *logItem) parent() uint64 {
	if i.group != nil {
		return i.group.Parent
	}
	return i.dir.GetParent()
}

func (i *logItem) name() string {
	if i.group != nil {
		return i.group.Name
	}
	return i.dir.GetName()
}

// own is what is set at the item itself.
func (i *logItem) own() *LogAttributes {
	if i.group != nil {
		return i.group.Attributes
	}
	return i.dir.GetAttributes()
}

// NewLogs indexes the log part of a valid catalog. One without a root directory
// has no logs yet.
func NewLogs(c *Catalog) *Logs {
	l := &Logs{
		version: c.GetLogVersion(), defaults: c.GetLogDefaults(),
		nextLog: max(1, c.GetNextLogId()), nextItem: max(logRoot+1, c.GetNextLogItemId()),
		byID: btree.NewBTreeG(func(a, b *logItem) bool { return a.id() < b.id() }),
		byName: btree.NewBTreeG(func(a, b *logItem) bool {
			if a.parent() != b.parent() {
				return a.parent() < b.parent()
			}
			return a.name() < b.name()
		}),
		spans: btree.NewBTreeG(func(a, b logSpan) bool { return a.first < b.first }),
	}
	root := &LogDirectory{Id: logRoot}
	for _, d := range c.GetLogDirectories() {
		if d.Id == logRoot {
			root = d
			continue
		}
		l.put(&logItem{dir: d})
	}
	for _, g := range c.GetLogGroups() {
		l.put(&logItem{group: g})
	}
	l.byID.Set(&logItem{dir: root, set: l.defaults, full: complete(l.defaults)})
	l.resolveBelow(l.root())
	return l
}

func (l *Logs) clone() *Logs {
	c := *l
	c.byID, c.byName, c.spans = l.byID.Copy(), l.byName.Copy(), l.spans.Copy()
	return &c
}

// put adds or replaces an item other than the root.
func (l *Logs) put(i *logItem) {
	l.byID.Set(i)
	l.byName.Set(i)
	if i.group == nil {
		return
	}
	before := uint64(0)
	for r := range i.group.Ranges() {
		l.spans.Set(logSpan{first: r.First, last: r.Last, before: before, item: i})
		before += r.Last - r.First + 1
	}
}

// drop removes an item.
func (l *Logs) drop(i *logItem) {
	l.byID.Delete(i)
	l.byName.Delete(i)
	if i.group != nil {
		for r := range i.group.Ranges() {
			l.spans.Delete(logSpan{first: r.First})
		}
	}
}

// resolveBelow computes anew what everything below a directory has.
func (l *Logs) resolveBelow(dir *logItem) {
	for _, child := range l.children(dir) {
		now := resolved(dir, &logItem{dir: child.dir, group: child.group})
		l.put(now)
		if now.group == nil {
			l.resolveBelow(now)
		}
	}
}

// resolved fills in what an item in a directory has; nothing of its own set
// means the same message as its directory's.
func resolved(dir, i *logItem) *logItem {
	i.set, i.full = overlay(dir.set, i.own()), dir.full
	if i.set != dir.set {
		i.full = complete(i.set)
	}
	return i
}

func (l *Logs) root() *logItem { return l.item(logRoot) }

func (l *Logs) item(id uint64) *logItem {
	i, _ := l.byID.Get(&logItem{dir: &LogDirectory{Id: id}})
	return i
}

func (l *Logs) child(dir *logItem, name string) *logItem {
	i, _ := l.byName.Get(&logItem{dir: &LogDirectory{Parent: dir.id(), Name: name}})
	return i
}

// children are a directory's items by name.
func (l *Logs) children(dir *logItem) (list []*logItem) {
	id := dir.id()
	l.byName.Ascend(&logItem{dir: &LogDirectory{Parent: id}}, func(i *logItem) bool {
		if i.parent() != id {
			return false
		}
		list = append(list, i)
		return true
	})
	return list
}

// find walks a path. Where it ends early, at is the last item that there is and
// rest the names that there are not.
func (l *Logs) find(names []string) (at *logItem, rest []string) {
	at = l.root()
	for n, name := range names {
		var next *logItem
		if at.group == nil {
			next = l.child(at, name)
		}
		if next == nil {
			return at, names[n:]
		}
		at = next
	}
	return at, nil
}

// lookup finds what a path names.
func (l *Logs) lookup(path string) (*logItem, error) {
	names, err := splitLogPath(path)
	if err != nil {
		return nil, err
	}
	at, rest := l.find(names)
	switch {
	case len(rest) == 0:
		return at, nil
	case at.group != nil:
		return nil, logError(LogNotDirectory, path, "%s is a log group and holds nothing", l.path(at))
	}
	return nil, logError(LogNotFound, path, "no %q in %s", rest[0], l.path(at))
}

func (l *Logs) path(i *logItem) string {
	var names []string
	for ; i.id() != logRoot; i = l.item(i.parent()) {
		names = append(names, i.name())
	}
	for a, b := 0, len(names)-1; a < b; a, b = a+1, b-1 {
		names[a], names[b] = names[b], names[a]
	}
	return joinLogPath(names)
}

// Version is the catalog's version when anything of logs last changed.
func (l *Logs) Version() uint64 { return l.version }

// Group finds a group by its path.
func (l *Logs) Group(path string) (*LogGroup, error) {
	i, err := l.lookup(path)
	if err != nil {
		return nil, err
	}
	if i.group == nil {
		return nil, logError(LogNotDirectory, path, "is a directory, not a log group")
	}
	return i.group, nil
}

// GroupWithID finds a group by its own id; nil if there is none.
func (l *Logs) GroupWithID(id uint64) *LogGroup {
	if i := l.item(id); i != nil {
		return i.group
	}
	return nil
}

// Directory finds a directory by its path; "/" is the root, whose attributes are
// the cluster's defaults.
func (l *Logs) Directory(path string) (*LogDirectory, error) {
	i, err := l.lookup(path)
	if err != nil {
		return nil, err
	}
	if i.group != nil {
		return nil, logError(LogNotDirectory, path, "is a log group, not a directory")
	}
	return i.dir, nil
}

// GroupOf is the group that a log belongs to, and the log's number in it; nil if
// there is no such log.
func (l *Logs) GroupOf(log uint64) (g *LogGroup, number uint64) {
	s, ok := l.span(log)
	if !ok {
		return nil, 0
	}
	return s.item.group, s.before + log - s.first
}

func (l *Logs) span(log uint64) (found logSpan, ok bool) {
	l.spans.Descend(logSpan{first: log}, func(s logSpan) bool {
		found, ok = s, log <= s.last
		return false
	})
	return found, ok
}

// Attributes is what a log has, everything that it inherits and the built-in
// values included; false if there is no such log. It is shared: do not change it.
// As long as nothing that it depends on changes, it stays the same message.
func (l *Logs) Attributes(log uint64) (*LogAttributes, bool) {
	s, ok := l.span(log)
	if !ok {
		return nil, false
	}
	return s.item.full, true
}

// AttributesAt is what logs have at a path, of a group or a directory.
func (l *Logs) AttributesAt(path string) (*LogAttributes, error) {
	i, err := l.lookup(path)
	if err != nil {
		return nil, err
	}
	return i.full, nil
}

// Resolve finds the id of a log by its name. A group of several logs needs the
// number too.
func (l *Logs) Resolve(n LogName) (uint64, error) {
	if n.ID != 0 {
		if _, ok := l.span(n.ID); !ok {
			return 0, logError(LogNotFound, n.String(), "no log has this id")
		}
		return n.ID, nil
	}
	g, err := l.Group(n.Path)
	if err != nil {
		return 0, err
	}
	switch count := g.Logs(); {
	case !n.Numbered && count > 1:
		return 0, logError(LogInvalid, n.Path, "is a group of %d logs: say which, from %s#0 to %s#%d", count, n.Path, n.Path, count-1)
	case n.Number >= count:
		return 0, logError(LogNotFound, n.String(), "the group has %d logs, numbered from 0", count)
	}
	return g.Log(n.Number), nil
}

// Path is the path of a group or a directory by its id; empty if there is none.
func (l *Logs) Path(id uint64) string {
	if i := l.item(id); i != nil {
		return l.path(i)
	}
	return ""
}

// Name is how a log is named: by its group's path, and by its number where the
// group has several; false if there is no such log.
func (l *Logs) Name(log uint64) (LogName, bool) {
	s, ok := l.span(log)
	if !ok {
		return LogName{}, false
	}
	n := LogName{Path: l.path(s.item)}
	if s.item.group.Logs() > 1 {
		n.Number, n.Numbered = s.before+log-s.first, true
	}
	return n, true
}

// LogSource is one attribute of a log and where it comes from.
type LogSource struct {
	Name, Value string
	From        string // "built-in", or the path that sets it: "/" for the cluster's defaults
}

// Sources says of every attribute at a path what it is and which level set it.
func (l *Logs) Sources(path string) ([]LogSource, error) {
	at, err := l.lookup(path)
	if err != nil {
		return nil, err
	}
	var list []LogSource
	for _, d := range logAttributes {
		s := LogSource{Name: d.Name, Value: d.Format(at.full), From: "built-in"}
		for i := at; ; i = l.item(i.parent()) {
			own := i.own()
			if i.id() == logRoot {
				own = l.defaults
			}
			if d.IsSet(own) {
				s.From = l.path(i)
				break
			}
			if i.id() == logRoot {
				break
			}
		}
		list = append(list, s)
	}
	return list, nil
}

// LogEntry is one thing in the tree of logs.
type LogEntry struct {
	Path       string
	Directory  *LogDirectory // nil for a group
	Group      *LogGroup     // nil for a directory
	Attributes *LogAttributes
}

// Walk visits a directory or group and all below it: a directory before what it
// holds, that by name. It ends early when visit returns false.
func (l *Logs) Walk(path string, visit func(LogEntry) bool) error {
	i, err := l.lookup(path)
	if err != nil {
		return err
	}
	l.walk(i, l.path(i), visit)
	return nil
}

func (l *Logs) walk(i *logItem, path string, visit func(LogEntry) bool) bool {
	if !visit(LogEntry{Path: path, Directory: i.dir, Group: i.group, Attributes: i.full}) {
		return false
	}
	if i.group != nil {
		return true
	}
	for _, child := range l.children(i) {
		if !l.walk(child, strings.TrimSuffix(path, "/")+"/"+child.name(), visit) {
			return false
		}
	}
	return true
}

// Into writes the log part into a catalog that is not shared yet.
func (l *Logs) Into(c *Catalog) {
	c.LogDirectories, c.LogGroups = nil, nil
	l.byID.Scan(func(i *logItem) bool {
		if i.group != nil {
			c.LogGroups = append(c.LogGroups, i.group)
		} else {
			c.LogDirectories = append(c.LogDirectories, i.dir)
		}
		return true
	})
	c.NextLogId, c.NextLogItemId, c.LogDefaults, c.LogVersion = l.nextLog, l.nextItem, l.defaults, l.version
}

// logsText prints the log part as Text does the rest.
func logsText(sb *strings.Builder, c *Catalog) {
	own := func(a *LogAttributes) {
		for _, d := range logAttributes {
			if d.IsSet(a) {
				fmt.Fprintf(sb, ", %s=%s", d.Name, d.Format(a))
			}
		}
		sb.WriteByte('\n')
	}
	if len(c.GetLogDirectories()) == 0 {
		return
	}
	l := NewLogs(c)
	l.walk(l.root(), "/", func(e LogEntry) bool {
		switch {
		case e.Group != nil:
			fmt.Fprintf(sb, "log group %d %s", e.Group.Id, e.Path)
			for r := range e.Group.Ranges() {
				fmt.Fprintf(sb, " %d-%d", r.First, r.Last)
			}
			fmt.Fprintf(sb, " v%d", e.Group.Version)
			own(e.Group.Attributes)
		case e.Path == "/":
			fmt.Fprintf(sb, "logs from %d on are free", c.NextLogId)
			own(c.LogDefaults)
		default:
			fmt.Fprintf(sb, "log directory %d %s", e.Directory.Id, e.Path)
			own(e.Directory.Attributes)
		}
		return true
	})
}
