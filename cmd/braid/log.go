package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/braiddb/braid/client"
)

// logCmd holds the commands about one log, one group or one directory.
type logCmd struct {
	Create logCreateCmd `cmd:"" help:"Make a log, a group of logs, or a directory."`
	Append logAppendCmd `cmd:"" help:"Append what is read from stdin."`
	Tail   logTailCmd   `cmd:"" help:"Write records to stdout, and go on with those that come."`
	Info   logInfoCmd   `cmd:"" help:"Say how a log is: attributes, epoch, nodes, tail."`
	Check  logCheckCmd  `cmd:"" help:"Look whether every record has the copies that it should have."`
	Trim   logTrimCmd   `cmd:"" help:"Make the records up to an LSN or a time unreadable, for ever."`
	Find   logFindCmd   `cmd:"" help:"Find the LSN of a time or a key."`
	Alter  logAlterCmd  `cmd:"" help:"Change attributes of a log, a directory, or (/) the cluster's defaults."`
	Rename logRenameCmd `cmd:"" help:"Give a log or a directory another path."`
	Remove logRemoveCmd `cmd:"" help:"Remove a log or a directory."`
	List   logListCmd   `cmd:"" help:"List directories and logs."`
}

// Help shows the shortest way through a log's life.
func (logCmd) Help() string {
	return `Example:
  braid log create /clicks
  braid log append /clicks < clicks.txt
  braid log tail /clicks --from oldest`
}

// attributeFlags set attributes of logs.
type attributeFlags struct {
	Set map[string]string `help:"An attribute, such as --set replication=node:3,rack:2 --set backlog=7d. See braid log list --attributes." placeholder:"ATTRIBUTE=VALUE"`
}

func (f attributeFlags) settings() (list []client.LogSetting) {
	for _, name := range slices.Sorted(maps.Keys(f.Set)) {
		list = append(list, client.LogAttribute(name, f.Set[name]))
	}
	return list
}

// administer connects, does one thing, and tells what became of it.
func (f lookFlags) administer(do func(context.Context, *client.Client) error) error {
	ctx, cancel := context.WithTimeout(context.Background(), f.Timeout)
	defer cancel()
	cl, err := f.connect(ctx)
	if err != nil {
		return err
	}
	defer cl.Close()
	return asUsage(do(ctx, cl))
}

// asUsage marks what is wrong with how a command was called.
func asUsage(err error) error {
	if errors.Is(err, client.ErrInvalid) || errors.Is(err, client.ErrInvalidAttributes) {
		return &usageError{err}
	}
	return err
}

type logCreateCmd struct {
	lookFlags
	attributeFlags
	Path        string `arg:"" help:"Such as /events/clicks."`
	Logs        int    `help:"How many logs the group has." default:"1"`
	Directory   bool   `help:"Make a directory; its attributes are inherited by all below it."`
	Parents     bool   `help:"Make missing directories too." short:"p"`
	IfNotExists bool   `help:"Take what exists for what was to be made."`
	FirstID     uint64 `help:"The id of the first log; by default the next one that is free." placeholder:"ID"`
}

// Help shows typical calls.
func (logCreateCmd) Help() string {
	return `Examples:
  braid log create /clicks
  braid log create /events/clicks -p --logs 8 --set replication=node:3 --set max_payload_bytes=2MiB
  braid log create /kafka --directory --set create_on_append=true
One log of several is named by its number: /events/clicks#0 to /events/clicks#7.`
}

// Run makes it.
func (c logCreateCmd) Run() error {
	settings := c.settings()
	if c.Parents {
		settings = append(settings, client.LogParents())
	}
	if c.IfNotExists {
		settings = append(settings, client.LogIfNotExists())
	}
	if c.Directory {
		if c.Logs != 1 || c.FirstID != 0 {
			return &usageError{errors.New("--logs and --first-id are not for directories")}
		}
		return c.administer(func(ctx context.Context, cl *client.Client) error {
			if err := cl.CreateLogDirectory(ctx, c.Path, settings...); err != nil {
				return err
			}
			return c.list(ctx, cl, c.Path, true)
		})
	}
	if c.FirstID != 0 {
		settings = append(settings, client.LogFirstID(client.LogID(c.FirstID)))
	}
	return c.administer(func(ctx context.Context, cl *client.Client) error {
		info, err := cl.CreateLogs(ctx, c.Path, c.Logs, settings...)
		if err != nil {
			return err
		}
		return c.list(ctx, cl, info.Path, true)
	})
}

// logRow is a directory or a group in a list.
type logRow struct {
	Path        string            `json:"path"`
	Kind        string            `json:"kind"`
	Logs        int               `json:"logs,omitempty"`
	IDs         string            `json:"ids,omitempty"`
	Version     uint64            `json:"version,omitempty"`
	Attributes  map[string]string `json:"attributes"`
	Inheritance map[string]string `json:"set_by"`
}

// list shows a directory or group, and unless alone all below it.
func (f lookFlags) list(ctx context.Context, cl *client.Client, path string, alone bool) error {
	infos, err := cl.Logs(ctx, path)
	if err != nil {
		return err
	}
	if alone {
		infos = infos[:1]
	}
	list := []logRow{}
	rows := [][]string{{"PATH", "LOGS", "IDS", "REPLICATION", "BACKLOG", "MAX PAYLOAD", "SET HERE"}}
	for _, i := range infos {
		sources, err := cl.LogSources(ctx, i.Path)
		if err != nil {
			return err
		}
		r := logRow{Path: i.Path, Kind: "directory", Attributes: map[string]string{}, Inheritance: map[string]string{}}
		logs := ""
		if !i.Directory {
			r.Kind, r.Logs, r.IDs, r.Version = "logs", i.Logs, rangesText(i.Ranges), i.Version
			logs = strconv.Itoa(i.Logs)
		}
		var own []string
		for _, s := range sources {
			r.Attributes[s.Name], r.Inheritance[s.Name] = s.Value, s.From
			if s.From == i.Path {
				own = append(own, s.Name+"="+s.Value)
			}
		}
		list = append(list, r)
		rows = append(rows, []string{i.Path, logs, r.IDs, r.Attributes["replication"], r.Attributes["backlog"],
			r.Attributes["max_payload_bytes"], strings.Join(own, " ")})
	}
	return f.show(list, rows)
}

func rangesText(ranges []client.LogRange) string {
	var parts []string
	for _, r := range ranges {
		if r.First == r.Last {
			parts = append(parts, id(r.First))
			continue
		}
		parts = append(parts, id(r.First)+"-"+id(r.Last))
	}
	return strings.Join(parts, ",")
}

type logListCmd struct {
	lookFlags
	Path       string `arg:"" optional:"" help:"Only this directory or log." default:"/"`
	Attributes bool   `help:"List the attributes that logs can have instead."`
}

// Help shows typical calls.
func (logListCmd) Help() string {
	return "Examples:\n  braid logs\n  braid log list /events --format json\n  braid log list --attributes"
}

// Run lists the logs.
func (c logListCmd) Run() error {
	if c.Attributes {
		return c.attributes()
	}
	return c.administer(func(ctx context.Context, cl *client.Client) error { return c.list(ctx, cl, c.Path, false) })
}

func (c logListCmd) attributes() error {
	type row struct {
		Name string `json:"name"`
		Help string `json:"help"`
	}
	names, help := client.LogAttributeNames()
	var list []row
	rows := [][]string{{"ATTRIBUTE", "MEANING"}}
	for i := range names {
		list = append(list, row{names[i], help[i]})
		rows = append(rows, []string{names[i], help[i]})
	}
	return c.show(list, rows)
}

type logAlterCmd struct {
	lookFlags
	attributeFlags
	Path      string   `arg:"" help:"A log, a directory, or / for the cluster's defaults."`
	Inherit   []string `help:"Attributes that are not set here any more." placeholder:"ATTRIBUTE,..."`
	Logs      int      `help:"Give the group so many logs; those of the highest numbers go, with their records." placeholder:"N"`
	IfVersion uint64   `help:"Only if the group is of this version still." placeholder:"V"`
}

// Help shows typical calls.
func (logAlterCmd) Help() string {
	return `Examples:
  braid log alter /events/clicks --set backlog=7d --inherit max_payload_bytes
  braid log alter /events/clicks --logs 16
  braid log alter / --set replication=node:3`
}

// Run alters it.
func (c logAlterCmd) Run() error {
	settings := c.settings()
	if len(c.Inherit) > 0 {
		settings = append(settings, client.LogInherit(c.Inherit...))
	}
	if len(settings) == 0 && c.Logs == 0 {
		return &usageError{errors.New("nothing to alter: pass --set, --inherit or --logs")}
	}
	if len(settings) > 0 && c.Logs != 0 {
		return &usageError{errors.New("--logs is a change of its own: call twice")}
	}
	if c.IfVersion != 0 {
		settings = append(settings, client.LogIfVersion(c.IfVersion))
	}
	return c.administer(func(ctx context.Context, cl *client.Client) (err error) {
		if c.Logs != 0 {
			_, err = cl.ResizeLogs(ctx, c.Path, c.Logs, settings...)
		} else {
			err = cl.AlterLog(ctx, c.Path, settings...)
		}
		if err != nil {
			return err
		}
		return c.list(ctx, cl, c.Path, true)
	})
}

type logRenameCmd struct {
	lookFlags
	From    string `arg:""`
	To      string `arg:""`
	Parents bool   `help:"Make missing directories too." short:"p"`
}

// Help shows a typical call.
func (logRenameCmd) Help() string {
	return "Logs keep their ids and records, and inherit from where they are now.\n\nExample:\n  braid log rename /events/clicks /archive/clicks"
}

// Run renames it.
func (c logRenameCmd) Run() error {
	var settings []client.LogSetting
	if c.Parents {
		settings = append(settings, client.LogParents())
	}
	return c.administer(func(ctx context.Context, cl *client.Client) error {
		if err := cl.RenameLog(ctx, c.From, c.To, settings...); err != nil {
			return err
		}
		return c.list(ctx, cl, c.To, true)
	})
}

type logRemoveCmd struct {
	lookFlags
	Path      string `arg:""`
	Recursive bool   `help:"A directory with all that is in it." short:"r"`
}

// Help shows typical calls.
func (logRemoveCmd) Help() string {
	return "Examples:\n  braid log remove /events/clicks\n  braid log remove --recursive /events"
}

// Run removes it.
func (c logRemoveCmd) Run() error {
	return c.administer(func(ctx context.Context, cl *client.Client) error {
		if err := cl.RemoveLog(ctx, c.Path, c.Recursive); err != nil {
			return err
		}
		return c.show(map[string]string{"removed": c.Path}, [][]string{{fmt.Sprintf("removed %s", c.Path)}})
	})
}
