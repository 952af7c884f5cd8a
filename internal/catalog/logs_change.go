package catalog

// Bounds of the log part.
const (
	logItemsMax     = 1 << 20 // directories and groups
	logsPerGroupMax = 1 << 30
	logRangesMax    = 1024 // of a group
)

// MakeDirectory makes a directory, with parents those above it that are missing too.
// at is the version of the catalog that it makes, here and below.
func (l *Logs) MakeDirectory(at uint64, path string, a *LogAttributes, parents bool) (*Logs, error) {
	n := l.next(at)
	dir, name, err := n.place(path, parents)
	if err != nil {
		return nil, err
	}
	if err := n.add(path, dir, &logItem{dir: &LogDirectory{Parent: dir.id(), Name: name, Attributes: a.without(nil)}}); err != nil {
		return nil, err
	}
	return n, nil
}

// NewLogGroup is a group that is to be made.
type NewLogGroup struct {
	Path       string
	Attributes *LogAttributes
	Logs       uint64 // how many; 0: one
	FirstLog   uint64 // the first id; 0: the next one that is free
	Parents    bool   // missing directories are made too
}

// MakeGroup makes a group.
func (l *Logs) MakeGroup(at uint64, w NewLogGroup) (*Logs, *LogGroup, error) {
	n := l.next(at)
	dir, name, err := n.place(w.Path, w.Parents)
	if err != nil {
		return nil, nil, err
	}
	count, first := max(1, w.Logs), w.FirstLog
	if first == 0 {
		first = n.nextLog
	}
	if err := n.claim(w.Path, first, count); err != nil {
		return nil, nil, err
	}
	g := &LogGroup{
		Parent: dir.id(), Name: name, FirstLog: first, LastLog: first + count - 1,
		Attributes: w.Attributes.without(nil), Version: at,
	}
	if err := n.add(w.Path, dir, &logItem{group: g}); err != nil {
		return nil, nil, err
	}
	return n, g, nil
}

// CreateOnAppend finds the group of a path, or makes it where the nearest
// directory above it that exists allows that. The Logs are nil if it was there.
func (l *Logs) CreateOnAppend(at uint64, path string) (*Logs, *LogGroup, error) {
	names, err := splitLogPath(path)
	if err != nil {
		return nil, nil, err
	}
	near, rest := l.find(names)
	switch {
	case len(rest) == 0 && near.group != nil:
		return nil, near.group, nil
	case len(rest) == 0:
		return nil, nil, logError(LogNotDirectory, path, "is a directory, not a log group")
	case near.group == nil && !near.full.GetCreateOnAppend():
		return nil, nil, logError(LogNotFound, path, "no such log, and %s does not allow that it is made by an append: set create_on_append there", l.path(near))
	}
	return l.MakeGroup(at, NewLogGroup{Path: path, Parents: true})
}

// LogAlteration is a change of attributes at a path; "/" stands for the
// cluster's defaults.
type LogAlteration struct {
	Path      string
	Set       *LogAttributes
	Inherit   []string // names of attributes that are no longer set there
	IfVersion uint64   // of the group; 0: any
}

// Alter changes what is set at a group, a directory or for the cluster. The
// group is nil where it was not one.
func (l *Logs) Alter(at uint64, c LogAlteration) (*Logs, *LogGroup, error) {
	i, err := l.lookup(c.Path)
	if err != nil {
		return nil, nil, err
	}
	for _, name := range c.Inherit {
		d, err := LogAttributeNamed(name)
		if err != nil {
			return nil, nil, err
		}
		if d.IsSet(c.Set) {
			return nil, nil, logError(LogInvalidAttributes, c.Path, "%s is to be set and to be inherited", name)
		}
	}
	if err := unchanged(i, c.Path, c.IfVersion); err != nil {
		return nil, nil, err
	}
	n := l.next(at)
	if i.id() == logRoot {
		n.defaults = overlay(n.defaults.without(c.Inherit), c.Set).without(nil)
		root := &logItem{dir: i.dir, set: n.defaults, full: complete(n.defaults)}
		n.byID.Set(root)
		if err := n.settle(root); err != nil {
			return nil, nil, err
		}
		return n, nil, nil
	}
	own := overlay(i.own().without(c.Inherit), c.Set).without(nil)
	now := new(logItem)
	if i.group != nil {
		now.group = i.group.CloneVT()
		now.group.Attributes, now.group.Version = own, at
	} else {
		now.dir = &LogDirectory{Id: i.dir.Id, Parent: i.dir.Parent, Name: i.dir.Name, Attributes: own}
	}
	n.put(resolved(n.item(i.parent()), now))
	if err := n.settle(now); err != nil {
		return nil, nil, err
	}
	return n, now.group, nil
}

// Rename gives a group, or a directory with all below it, another path.
func (l *Logs) Rename(at uint64, from, to string, parents bool) (*Logs, *LogGroup, error) {
	i, err := l.lookup(from)
	if err != nil {
		return nil, nil, err
	}
	if i.id() == logRoot {
		return nil, nil, logError(LogInvalid, from, "the root has no other name")
	}
	n := l.next(at)
	dir, name, err := n.place(to, parents)
	if err != nil {
		return nil, nil, err
	}
	for up := dir; up.id() != logRoot; up = n.item(up.parent()) {
		if up.id() == i.id() {
			return nil, nil, logError(LogInvalid, from, "cannot be moved below itself, to %q", to)
		}
	}
	now := new(logItem)
	if i.group != nil {
		now.group = i.group.CloneVT()
		now.group.Parent, now.group.Name, now.group.Version = dir.id(), name, at
	} else {
		now.dir = &LogDirectory{Id: i.dir.Id, Parent: dir.id(), Name: name, Attributes: i.dir.Attributes}
	}
	n.drop(i)
	n.put(resolved(dir, now))
	if err := n.settle(now); err != nil {
		return nil, nil, err
	}
	if err := n.shallow(now); err != nil {
		return nil, nil, err
	}
	return n, now.group, nil
}

// Remove removes a group, or a directory; with recursive, one that is not empty.
func (l *Logs) Remove(at uint64, path string, recursive bool, ifVersion uint64) (*Logs, error) {
	i, err := l.lookup(path)
	if err != nil {
		return nil, err
	}
	if err := unchanged(i, path, ifVersion); err != nil {
		return nil, err
	}
	if i.id() == logRoot {
		return nil, logError(LogInvalid, path, "the root cannot be removed")
	}
	if held := l.children(i); i.group == nil && len(held) > 0 && !recursive {
		return nil, logError(LogNotEmpty, path, "holds %d directories and groups, the first is %q: remove it recursively, or them first", len(held), held[0].name())
	}
	n := l.next(at)
	n.dropAll(i)
	return n, nil
}

func (l *Logs) dropAll(i *logItem) {
	if i.group == nil {
		for _, child := range l.children(i) {
			l.dropAll(child)
		}
	}
	l.drop(i)
}

// Resize gives a group more logs, or takes those of the highest numbers away.
// Ids taken away are never given out again.
func (l *Logs) Resize(at uint64, path string, logs, ifVersion uint64) (*Logs, *LogGroup, error) {
	i, err := l.lookup(path)
	switch {
	case err != nil:
		return nil, nil, err
	case i.group == nil:
		return nil, nil, logError(LogNotDirectory, path, "is a directory, not a log group")
	case logs == 0 || logs > logsPerGroupMax:
		return nil, nil, logError(LogInvalid, path, "a group has 1 to %d logs, not %d", logsPerGroupMax, logs)
	}
	if err := unchanged(i, path, ifVersion); err != nil {
		return nil, nil, err
	}
	n := l.next(at)
	if has := i.group.Logs(); logs > has {
		if err := n.room(path, n.nextLog, logs-has); err != nil {
			return nil, nil, err
		}
	}
	now := &logItem{set: i.set, full: i.full}
	now.group, n.nextLog = i.group.resized(logs, n.nextLog)
	now.group.Version = at
	if len(now.group.More) >= logRangesMax {
		return nil, nil, logError(LogInvalid, path, "a group grows %d times at most: make another", logRangesMax)
	}
	n.drop(i)
	n.put(now)
	return n, now.group, nil
}

// next is the next version, still the same.
func (l *Logs) next(at uint64) *Logs {
	n := l.clone()
	n.version = at
	return n
}

func unchanged(i *logItem, path string, version uint64) error {
	if version != 0 && i.group.GetVersion() != version {
		return logError(LogChanged, path, "is of version %d, not %d: read it again", i.group.GetVersion(), version)
	}
	return nil
}

// place finds where something new of a path goes.
func (l *Logs) place(path string, parents bool) (dir *logItem, name string, err error) {
	names, err := splitLogPath(path)
	if err != nil {
		return nil, "", err
	}
	at, rest := l.find(names)
	for len(rest) > 1 && parents && at.group == nil {
		made := &logItem{dir: &LogDirectory{Parent: at.id(), Name: rest[0]}}
		if err := l.add(path, at, made); err != nil {
			return nil, "", err
		}
		at, rest = made, rest[1:]
	}
	switch {
	case len(rest) == 0 && at.group == nil:
		return nil, "", logError(LogExists, path, "a directory of this name exists")
	case len(rest) == 0:
		return nil, "", logError(LogExists, path, "a log group of this name exists")
	case at.group != nil:
		return nil, "", logError(LogNotDirectory, path, "%s is a log group and holds nothing", l.path(at))
	case len(rest) > 1:
		return nil, "", logError(LogNotFound, path, "no directory %q in %s: make it, or ask for missing ones to be made", rest[0], l.path(at))
	}
	return at, rest[0], nil
}

// add gives a new item its id and puts it into its directory.
func (l *Logs) add(path string, dir, i *logItem) error {
	if l.byID.Len() >= logItemsMax {
		return logError(LogInvalid, path, "there are %d directories and groups already: a group may have many logs", logItemsMax)
	}
	if i.group != nil {
		i.group.Id = l.nextItem
	} else {
		i.dir.Id = l.nextItem
	}
	l.nextItem++
	l.put(resolved(dir, i))
	return l.check(i)
}

// claim takes ids that were never given out.
func (l *Logs) claim(path string, first, count uint64) error {
	if count > logsPerGroupMax {
		return logError(LogInvalid, path, "a group has 1 to %d logs, not %d", logsPerGroupMax, count)
	}
	if first < l.nextLog {
		if s, ok := l.span(first); ok {
			return logError(LogIDClash, path, "log %d belongs to %s: the next id that is free is %d", first, l.path(s.item), l.nextLog)
		}
		return logError(LogIDClash, path, "log %d was given out or passed over before: the next id that is free is %d", first, l.nextLog)
	}
	if err := l.room(path, first, count); err != nil {
		return err
	}
	l.nextLog = first + count
	return nil
}

func (l *Logs) room(path string, first, count uint64) error {
	if first > LogIDMax || count > LogIDMax-first+1 {
		return logError(LogInvalid, path, "%d ids from %d on go beyond the highest, %d", count, first, LogIDMax)
	}
	return nil
}

// settle resolves and checks all that a changed item stands for.
func (l *Logs) settle(i *logItem) error {
	if i.group == nil {
		l.resolveBelow(i)
	}
	return l.checkAll(i, i.full)
}

// checkAll checks an item and those below whose attributes are not what was
// checked already.
func (l *Logs) checkAll(i *logItem, checked *LogAttributes) error {
	if err := l.check(i); err != nil {
		return err
	}
	if i.group != nil {
		return nil
	}
	for _, child := range l.children(i) {
		if child.full == checked && child.group != nil {
			continue
		}
		if err := l.checkAll(child, child.full); err != nil {
			return err
		}
	}
	return nil
}

// check is C9 for one item.
func (l *Logs) check(i *logItem) error {
	if err := checkLogAttributes(i.set); err != nil {
		return logError(LogInvalidAttributes, l.path(i), "%v", err)
	}
	if i.group != nil && i.group.Attributes.GetCreateOnAppend() {
		return logError(LogInvalidAttributes, l.path(i), "create_on_append is for directories: a log group exists")
	}
	return nil
}

// shallow makes sure that nothing below an item that was moved lies too deep to be named.
func (l *Logs) shallow(i *logItem) error {
	var err error
	l.walk(i, l.path(i), func(e LogEntry) bool {
		_, err = splitLogPath(e.Path)
		return err == nil
	})
	return err
}
