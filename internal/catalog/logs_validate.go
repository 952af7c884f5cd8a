package catalog

import (
	"cmp"
	"slices"
)

// validateLogs checks C7, C8 and C9 of a catalog as it was read: the changes of
// logs_change.go check what they touch, this checks all, and by another way.
func validateLogs(c *Catalog) error {
	if len(c.GetLogDirectories()) == 0 {
		if len(c.GetLogGroups()) > 0 {
			return invalid("C7", "log groups without a root directory")
		}
		if err := checkLogAttributes(c.GetLogDefaults()); err != nil {
			return invalid("C9", "the cluster's log defaults: %v", err)
		}
		return nil
	}
	parents, err := validateLogTree(c)
	if err != nil {
		return err
	}
	if err := validateLogRanges(c); err != nil {
		return err
	}
	return validateLogAttributes(c, parents)
}

// validateLogTree is C7; it gives the directories by id.
func validateLogTree(c *Catalog) (map[uint64]*LogDirectory, error) {
	type place struct {
		parent uint64
		name   string
	}
	dirs := make(map[uint64]*LogDirectory, len(c.LogDirectories))
	seen := make(map[uint64]bool, len(c.LogDirectories)+len(c.LogGroups))
	names := make(map[place]bool, len(c.LogDirectories)+len(c.LogGroups))
	for i, d := range c.LogDirectories {
		if (i == 0) != (d.GetId() == logRoot) {
			return nil, invalid("C7", "the root log directory is not the first, and the only one with id %d", logRoot)
		}
		if i == 0 && (d.Parent != 0 || d.Name != "" || d.Attributes != nil) {
			return nil, invalid("C7", "the root log directory has a parent, a name or attributes")
		}
		if d.Id >= c.NextLogItemId {
			return nil, invalid("C7", "log directory id %d is not below %d", d.Id, c.NextLogItemId)
		}
		dirs[d.Id] = d
	}
	item := func(id, parent uint64, name string) error {
		switch {
		case id == 0 || id >= c.NextLogItemId || seen[id]:
			return invalid("C7", "log directory or group id %d is taken, or not in [1, %d)", id, c.NextLogItemId)
		case id == logRoot:
		case dirs[parent] == nil:
			return invalid("C7", "%q (%d) lies in log directory %d, which does not exist", name, id, parent)
		case checkLogName(name) != nil:
			return invalid("C7", "log directory or group %d: %v", id, checkLogName(name))
		case names[place{parent, name}]:
			return invalid("C7", "two things in log directory %d have the name %q", parent, name)
		}
		seen[id], names[place{parent, name}] = true, true
		return nil
	}
	for _, d := range c.LogDirectories {
		if err := item(d.Id, d.Parent, d.Name); err != nil {
			return nil, err
		}
		up, steps := d, 0
		for ; up.Id != logRoot && steps <= logDepthMax; steps++ {
			if up = dirs[up.Parent]; up == nil {
				return nil, invalid("C7", "log directory %d lies in one that does not exist", d.Id)
			}
		}
		if up.Id != logRoot {
			return nil, invalid("C7", "log directory %d is not below the root, or more than %d levels deep", d.Id, logDepthMax)
		}
	}
	for _, g := range c.LogGroups {
		if err := item(g.GetId(), g.GetParent(), g.GetName()); err != nil {
			return nil, err
		}
	}
	return dirs, nil
}

// validateLogRanges is C8.
func validateLogRanges(c *Catalog) error {
	type span struct {
		IDRange
		group *LogGroup
	}
	var spans []span
	for _, g := range c.LogGroups {
		last := uint64(0)
		for r := range g.Ranges() {
			if r.First == 0 || r.Last < r.First || r.Last > LogIDMax || r.Last >= c.NextLogId {
				return invalid("C8", "log group %d: ids [%d, %d] are not below the next one, %d", g.Id, r.First, r.Last, c.NextLogId)
			}
			if r.First <= last {
				return invalid("C8", "log group %d: its ranges do not ascend at %d", g.Id, r.First)
			}
			last = r.Last
			spans = append(spans, span{r, g})
		}
	}
	slices.SortFunc(spans, func(a, b span) int { return cmp.Compare(a.First, b.First) })
	for i := 1; i < len(spans); i++ {
		if a, b := spans[i-1], spans[i]; b.First <= a.Last {
			return invalid("C8", "log %d is in the groups %d and %d", b.First, a.group.Id, b.group.Id)
		}
	}
	return nil
}

// validateLogAttributes is C9.
func validateLogAttributes(c *Catalog, dirs map[uint64]*LogDirectory) error {
	sets := make(map[uint64]*LogAttributes, len(dirs))
	var at func(id uint64) *LogAttributes
	at = func(id uint64) *LogAttributes {
		if id == logRoot {
			return c.LogDefaults
		}
		set, known := sets[id]
		if !known {
			set = overlay(at(dirs[id].Parent), dirs[id].Attributes)
			sets[id] = set
		}
		return set
	}
	good := make(map[*LogAttributes]bool, len(dirs))
	check := func(id uint64, set *LogAttributes) error {
		if good[set] {
			return nil
		}
		if err := checkLogAttributes(set); err != nil {
			return invalid("C9", "log directory or group %d: %v", id, err)
		}
		good[set] = true
		return nil
	}
	for _, d := range c.LogDirectories {
		if err := check(d.Id, at(d.Id)); err != nil {
			return err
		}
	}
	for _, g := range c.LogGroups {
		if err := check(g.Id, overlay(at(g.Parent), g.Attributes)); err != nil {
			return err
		}
		if g.Attributes.GetCreateOnAppend() {
			return invalid("C9", "log group %d: create_on_append is for directories", g.Id)
		}
	}
	return nil
}
