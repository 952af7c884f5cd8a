package master

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"
	"pgregory.net/rapid"

	"github.com/braiddb/braid/internal/catalog"
	"github.com/braiddb/braid/internal/hlc"
	"github.com/braiddb/braid/internal/wire"
)

// conversation is a machine that golden files talk to.
type conversation struct {
	machine *Machine
	at      hlc.Timestamp
}

func TestMachineConversations(t *testing.T) {
	datadriven.Walk(t, "testdata/machine", func(t *testing.T, path string) {
		c := &conversation{machine: NewMachine(), at: hlc.FromMicros(1_000_000)}
		datadriven.RunTest(t, path, c.say)
	})
}

// say carries out one directive:
//
//	found nodes=(a,b) tablets=n      the first catalog
//	admin [client=c request=n]       one action a line (see adminOf)
//	admit addr=a dir=d [id=n] [incarnation=n]
//	change                           parts of the master's own command, one a line (see part)
//	catalog                          prints it
//	wait seconds=n                   lets hybrid time pass
//	restart                          encodes the state and decodes it
func (c *conversation) say(t *testing.T, d *datadriven.TestData) string {
	cmd := &Command{Version: commandVersion}
	switch d.Cmd {
	case "catalog":
		return catalog.Text(c.machine.Index().Catalog())
	case "wait":
		var seconds int
		d.ScanArgs(t, "seconds", &seconds)
		c.at = c.at.Add(time.Duration(seconds) * time.Second)
		return ""
	case "restart":
		data, err := c.machine.Encode()
		if err != nil {
			t.Fatal(err)
		}
		if c.machine, err = DecodeState(data); err != nil {
			return err.Error()
		}
		return "ok"
	case "found":
		var nodes []*catalog.Node
		for _, addr := range argument(d, "nodes") {
			nodes = append(nodes, &catalog.Node{RpcAddr: addr, DirectoryId: []byte("dir-" + addr), Incarnation: 1})
		}
		tablets, _ := strconv.Atoi(first(argument(d, "tablets")))
		cmd.Found = &Found{Catalog: FirstCatalog("c", nodes, First{Tablets: tablets})}
	case "admit":
		cmd.Admit = &Admit{Node: nodeOf(d)}
	case "admin":
		cmd.ClientId = []byte(first(argument(d, "client")))
		cmd.RequestId, _ = strconv.ParseUint(first(argument(d, "request")), 10, 64)
		cmd.Admin = adminOf(t, d.Input)
	case "change":
		for line := range strings.Lines(d.Input) {
			part(t, cmd, strings.Fields(line))
		}
	default:
		t.Fatalf("unknown directive %q", d.Cmd)
	}
	return c.apply(t, cmd)
}

func (c *conversation) apply(t *testing.T, cmd *Command) string {
	data, err := cmd.MarshalVT()
	if err != nil {
		t.Fatal(err)
	}
	was := c.machine.Index().Version()
	a, err := c.machine.Apply(c.at, data)
	if err != nil {
		return "stops: " + err.Error()
	}
	if a.Version != c.machine.Index().Version() || a.Version > was+1 {
		t.Fatalf("M2: version %d after %d, outcome says %d", c.machine.Index().Version(), was, a.Version)
	}
	out := fmt.Sprintf("version %d", a.Version)
	if a.Table != 0 {
		out += fmt.Sprintf(" table %d", a.Table)
	}
	if a.LogGroup != 0 {
		out += fmt.Sprintf(" log group %d", a.LogGroup)
	}
	if a.Admitted != 0 {
		out += fmt.Sprintf(" node %d", a.Admitted)
	}
	if a.Err != nil {
		out += fmt.Sprintf(" %s: %s", a.Err.Code, a.Err.Message)
	}
	return out
}

func argument(d *datadriven.TestData, key string) []string {
	for _, a := range d.CmdArgs {
		if a.Key == key {
			return a.Vals
		}
	}
	return nil
}

func first(vals []string) string {
	if len(vals) == 0 {
		return ""
	}
	return vals[0]
}

func nodeOf(d *datadriven.TestData) *catalog.Node {
	n := &catalog.Node{RpcAddr: first(argument(d, "addr")), DirectoryId: []byte(first(argument(d, "dir"))), Incarnation: 1}
	n.Id, _ = strconv.ParseUint(first(argument(d, "id")), 10, 64)
	if s := first(argument(d, "incarnation")); s != "" {
		n.Incarnation, _ = strconv.ParseUint(s, 10, 64)
	}
	return n
}

// adminOf reads "create keyspace shop 3", "drop keyspace shop", "create table
// shop.orders murmur3 1,2;2,3 customer:string:hash at:timestamp:range" (nodes of
// each tablet), "drop table shop.orders", "alter table shop.orders add note:string
// drop total rename at when".
func adminOf(t *testing.T, line string) *Admin {
	f := strings.Fields(line)
	req := &wire.CatalogRequest{}
	a := &Admin{Request: req}
	if strings.HasSuffix(line, "if-not-exists") {
		req.IfNotExists, f = true, f[:len(f)-1]
	}
	switch f[0] + " " + f[1] {
	case "create keyspace":
		req.Action = wire.CatalogRequest_ACTION_CREATE_KEYSPACE
		req.Keyspace = &catalog.Keyspace{Name: f[2]}
		if len(f) > 3 {
			req.Keyspace.ReplicationFactor = uint32(number(t, f[3]))
		}
	case "drop keyspace":
		req.Action, req.Keyspace = wire.CatalogRequest_ACTION_DROP_KEYSPACE, &catalog.Keyspace{Name: f[2]}
	case "create table":
		req.Action, req.Table = wire.CatalogRequest_ACTION_CREATE_TABLE, tableOf(f[2])
		req.Table.Hash = catalog.Hash(catalog.Hash_value["HASH_"+strings.ToUpper(f[3])])
		for _, on := range strings.Split(f[4], ";") {
			p := &Placed{}
			for _, id := range strings.Split(on, ",") {
				p.Nodes = append(p.Nodes, number(t, id))
			}
			a.Tablets = append(a.Tablets, p)
		}
		req.Table.Schema = &catalog.Schema{}
		for _, c := range f[5:] {
			req.Table.Schema.Columns = append(req.Table.Schema.Columns, columnOf(c))
		}
	case "forget node":
		req.Action, req.Node = wire.CatalogRequest_ACTION_FORGET_NODE, number(t, f[2])
		req.AcceptLoss = len(f) > 3 && f[3] == "data-lost"
	case "drop table":
		req.Action, req.Table = wire.CatalogRequest_ACTION_DROP_TABLE, tableOf(f[2])
	case "alter table":
		req.Action, req.Table = wire.CatalogRequest_ACTION_ALTER_TABLE, tableOf(f[2])
		for i := 3; i < len(f); i += 2 {
			switch f[i] {
			case "add":
				req.Alterations = append(req.Alterations, &wire.Alteration{Add: columnOf(f[i+1])})
			case "drop":
				req.Alterations = append(req.Alterations, &wire.Alteration{Drop: f[i+1]})
			case "rename":
				req.Alterations = append(req.Alterations, &wire.Alteration{RenameFrom: f[i+1], RenameTo: f[i+2]})
				i++
			}
		}
	default:
		if f[0] == "log" {
			logOf(t, req, f[1:])
			return a
		}
		req.Action = wire.CatalogRequest_Action(99)
	}
	return a
}

// logOf reads "directory /a", "group /a/b", "alter /a", "remove /a", "rename /a
// /b", "resize /a/b", "append /a/b", each with any of logs=4 first=17 parents
// recursive version=3 inherit=backlog and attributes such as replication=node:3.
func logOf(t *testing.T, req *wire.CatalogRequest, f []string) {
	actions := map[string]wire.CatalogRequest_Action{
		"directory": wire.CatalogRequest_ACTION_MAKE_LOG_DIRECTORY, "group": wire.CatalogRequest_ACTION_MAKE_LOG_GROUP,
		"alter": wire.CatalogRequest_ACTION_ALTER_LOGS, "remove": wire.CatalogRequest_ACTION_REMOVE_LOGS,
		"rename": wire.CatalogRequest_ACTION_RENAME_LOGS, "resize": wire.CatalogRequest_ACTION_RESIZE_LOG_GROUP,
		"append": wire.CatalogRequest_ACTION_CREATE_ON_APPEND,
	}
	l := &wire.LogChange{Path: f[1], Attributes: &catalog.LogAttributes{}}
	req.Action, req.Log = actions[f[0]], l
	for _, word := range f[2:] {
		name, value, _ := strings.Cut(word, "=")
		switch name {
		case "logs":
			l.Logs = number(t, value)
		case "first":
			l.FirstLog = number(t, value)
		case "version":
			l.IfVersion = number(t, value)
		case "parents":
			l.Parents = true
		case "recursive":
			l.Recursive = true
		case "inherit":
			l.Inherit = append(l.Inherit, value)
		default:
			if strings.HasPrefix(word, "/") {
				l.To = word
				continue
			}
			d, err := catalog.LogAttributeNamed(name)
			if err == nil {
				err = d.Parse(l.Attributes, value)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
	}
}

func tableOf(name string) *catalog.Table {
	keyspace, table, _ := strings.Cut(name, ".")
	return &catalog.Table{Keyspace: keyspace, Name: table}
}

func columnOf(s string) *catalog.Column {
	f := append(strings.Split(s, ":"), "", "")
	c := &catalog.Column{Name: f[0], Type: catalog.Type(catalog.Type_value["TYPE_"+strings.ToUpper(f[1])]), Kind: catalog.ColumnKind_COLUMN_KIND_REGULAR}
	if f[2] != "" {
		c.Kind = catalog.ColumnKind(catalog.ColumnKind_value["COLUMN_KIND_"+strings.ToUpper(f[2])])
	}
	return c
}

func number(t *testing.T, s string) uint64 {
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// part reads "dead 3", "describe 2 addr dir incarnation", "observe 2 @17 1@1 4@2L"
// (group, applied, replicas), "add 2 v1 n3", "replace 2 v1 n3 -4", "remove 2 v1 -4",
// "cancel 2 v1" (group, version of its descriptor).
func part(t *testing.T, cmd *Command, f []string) {
	if f[0] == "dead" {
		cmd.Dead = append(cmd.Dead, number(t, f[1]))
		return
	}
	if f[0] == "describe" {
		cmd.Nodes = append(cmd.Nodes, &catalog.Node{Id: number(t, f[1]), RpcAddr: f[2], DirectoryId: []byte(f[3]), Incarnation: number(t, f[4])})
		return
	}
	if f[0] == "observe" {
		o := &Observed{Group: number(t, f[1]), Applied: number(t, f[2][1:])}
		for _, r := range f[3:] {
			role := catalog.Role_ROLE_VOTER
			if strings.HasSuffix(r, "L") {
				role, r = catalog.Role_ROLE_LEARNER, r[:len(r)-1]
			}
			id, node, _ := strings.Cut(r, "@")
			o.Config = append(o.Config, &catalog.Replica{Id: number(t, id), Node: number(t, node), Role: role})
		}
		cmd.Observed = append(cmd.Observed, o)
		return
	}
	p := &Plan{Kind: Plan_Kind(Plan_Kind_value["KIND_"+strings.ToUpper(f[0])]), Group: number(t, f[1])}
	for _, arg := range f[2:] {
		switch arg[0] {
		case 'v':
			p.BasedOn = number(t, arg[1:])
		case 'n':
			p.Node = number(t, arg[1:])
		case '-':
			p.Replica = number(t, arg[1:])
		}
	}
	cmd.Plans = append(cmd.Plans, p)
}

func TestMachineStopsAtWhatItDoesNotUnderstand(t *testing.T) {
	m := NewMachine()
	newer, _ := (&Command{Version: commandVersion + 1}).MarshalVT()
	if _, err := m.Apply(1, newer); !errors.Is(err, ErrNewer) {
		t.Errorf("a newer command: %v", err)
	}
	if _, err := m.Apply(1, []byte{0xff}); !errors.Is(err, ErrDamaged) {
		t.Errorf("a damaged command: %v", err)
	}
	state, _ := (&State{Format: stateFormat + 1, Catalog: &catalog.Catalog{}}).MarshalVT()
	if _, err := DecodeState(state); !errors.Is(err, ErrNewer) {
		t.Errorf("a newer state: %v", err)
	}
	bad := FirstCatalog("c", []*catalog.Node{self("a:1")}, First{})
	bad.Tablets[0].HashStart = 1
	state, _ = (&State{Format: stateFormat, Catalog: bad}).MarshalVT()
	for _, data := range [][]byte{state, {}, {0xff}} {
		if _, err := DecodeState(data); !errors.Is(err, ErrDamaged) {
			t.Errorf("a damaged state: %v", err)
		}
	}
}

// What is remembered is bounded: of a client, of clients, in time.
func TestRememberedRequestsAreBounded(t *testing.T) {
	var c clients
	at := hlc.FromMicros(1)
	id := func(i int) []byte { return []byte(fmt.Sprintf("client-%05d", i)) }
	for i := range clientsMax + 10 {
		c.remember(at, id(i), 1, &Outcome{RequestId: 1})
	}
	if len(c.list) != clientsMax {
		t.Errorf("%d clients are remembered, want %d", len(c.list), clientsMax)
	}
	last := id(clientsMax + 9)
	for r := uint64(2); r < perClientMax+20; r++ {
		c.remember(at, last, r, &Outcome{RequestId: r})
	}
	if n := len(c.list[len(c.list)-1].Done); n != perClientMax {
		t.Errorf("%d requests of a client are remembered, want %d", n, perClientMax)
	}
	if done, found := c.find(last, 1); !found || done.Error.GetCode() != wire.Code_CODE_REQUEST_EXPIRED {
		t.Errorf("a forgotten request: %v", done)
	}
	if done, found := c.find(last, perClientMax+19); !found || done.Error != nil {
		t.Errorf("the newest request: %v", done)
	}
	c.remember(at.Add(rememberFor+time.Second), id(0), 9, &Outcome{RequestId: 9})
	if len(c.list) != 1 {
		t.Errorf("%d clients are remembered after the window", len(c.list))
	}
	c.remember(at, bytes.Repeat([]byte("x"), clientIDLenMax+1), 1, &Outcome{RequestId: 1})
	if len(c.list) != 1 {
		t.Error("an endless client id is remembered")
	}
}

// Whatever commands come in whatever order: every version is valid (M1), grows by
// at most one (M2), shares nothing that changes with the ones before, and replicas
// that apply the same commands, one of them restarting in between, agree (M4).
func TestMachineKeepsItsInvariants(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, b := NewMachine(), NewMachine()
		at := hlc.FromMicros(1)
		var history []*catalog.Catalog
		var texts []string
		for range rapid.IntRange(1, 60).Draw(t, "commands") {
			cmd := drawCommand(t, a.Index())
			data, err := cmd.MarshalVT()
			if err != nil {
				t.Fatal(err)
			}
			at += hlc.Timestamp(rapid.Uint64Range(1, 1<<44).Draw(t, "later"))
			was := a.Index()
			out, err := a.Apply(at, data)
			if err != nil {
				t.Fatal(err)
			}
			same, err := b.Apply(at, data)
			if err != nil || same.Version != out.Version || same.Admitted != out.Admitted || same.Err.GetCode() != out.Err.GetCode() {
				t.Fatalf("M4: %v and %v (%v)", out, same, err)
			}
			now := a.Index().Catalog()
			if now.Version > 0 {
				if err := catalog.Validate(now); err != nil {
					t.Fatalf("M1: %v", err)
				}
			}
			switch {
			case now.Version > was.Version()+1:
				t.Fatalf("M2: %d after %d", now.Version, was.Version())
			case now.Version == was.Version() && a.Index() != was:
				t.Fatal("M2: a change without a version")
			case out.Err != nil && a.Index() != was:
				t.Fatal("M1: a refused command changed the catalog")
			}
			history, texts = append(history, now), append(texts, now.String())
			if rapid.IntRange(0, 9).Draw(t, "restart") == 0 {
				state, err := b.Encode()
				if err != nil {
					t.Fatal(err)
				}
				if b, err = DecodeState(state); err != nil {
					t.Fatal(err)
				}
			}
		}
		ea, _ := a.Encode()
		eb, _ := b.Encode()
		if !bytes.Equal(ea, eb) {
			t.Fatal("M4: two replicas differ")
		}
		for i, c := range history {
			if c.String() != texts[i] {
				t.Fatalf("catalog %d changed after it was given out", c.Version)
			}
		}
	})
}

func drawCommand(t *rapid.T, x *catalog.Index) *Command {
	cmd := &Command{Version: commandVersion}
	small := rapid.Uint64Range(0, 8)
	addr := rapid.SampledFrom([]string{"a:1", "b:1", "c:1", "d:1", "e:1"})
	if rapid.Bool().Draw(t, "remembered") {
		cmd.ClientId, cmd.RequestId = []byte{byte(small.Draw(t, "client"))}, small.Draw(t, "request")
	}
	switch rapid.IntRange(0, 7).Draw(t, "kind") {
	case 0:
		cmd.Found = &Found{Catalog: FirstCatalog("c", []*catalog.Node{self("a:1"), self("b:1"), self("c:1")}, First{})}
	case 1:
		cmd.Admit = &Admit{Node: &catalog.Node{
			RpcAddr: addr.Draw(t, "addr"), DirectoryId: []byte(addr.Draw(t, "dir")), Incarnation: small.Draw(t, "life"),
			Id: rapid.SampledFrom([]uint64{0, 0, 0, 1, 2}).Draw(t, "id"),
		}}
	case 2, 3:
		cmd.Admin = drawAdmin(t, small)
	default:
		for range rapid.IntRange(1, 4).Draw(t, "parts") {
			drawPart(t, cmd, x)
		}
	}
	return cmd
}

func drawAdmin(t *rapid.T, small *rapid.Generator[uint64]) *Admin {
	name := rapid.SampledFrom([]string{"k1", "k2", "system", ""})
	column := rapid.SampledFrom([]string{"a", "b", "c", ""})
	a := &Admin{Request: &wire.CatalogRequest{
		Action:      wire.CatalogRequest_Action(rapid.IntRange(0, 14).Draw(t, "action")),
		Keyspace:    &catalog.Keyspace{Name: name.Draw(t, "keyspace"), ReplicationFactor: uint32(small.Draw(t, "factor"))},
		IfNotExists: rapid.Bool().Draw(t, "if not exists"),
		Table: &catalog.Table{
			Keyspace: name.Draw(t, "in"), Name: rapid.SampledFrom([]string{"t1", "t2", "redis"}).Draw(t, "table"),
			Hash: catalog.Hash(rapid.IntRange(0, 2).Draw(t, "hash")),
			Schema: &catalog.Schema{Columns: []*catalog.Column{
				{Name: "k", Type: catalog.Type_TYPE_STRING, Kind: catalog.ColumnKind_COLUMN_KIND_HASH},
				{Name: column.Draw(t, "column"), Type: catalog.Type(rapid.IntRange(0, 7).Draw(t, "type")), Kind: catalog.ColumnKind_COLUMN_KIND_REGULAR},
			}},
		},
	}}
	for range rapid.IntRange(0, 4).Draw(t, "tablets") {
		a.Tablets = append(a.Tablets, &Placed{Nodes: rapid.SliceOfN(small, 0, 3).Draw(t, "nodes")})
	}
	path := rapid.SampledFrom([]string{"/", "/a", "/a/b", "/a/b/c", "/c", "//", "/c/d"})
	a.Request.Log = &wire.LogChange{
		Path: path.Draw(t, "path"), To: path.Draw(t, "to"), Logs: small.Draw(t, "logs"), FirstLog: small.Draw(t, "first log"),
		Parents: rapid.Bool().Draw(t, "parents"), Recursive: rapid.Bool().Draw(t, "recursive"),
		Attributes: rapid.SampledFrom([]*catalog.LogAttributes{
			nil, {}, {Replication: &catalog.Replication{Node: 4}}, {NodesetSize: new(uint32(3))}, {CreateOnAppend: new(true)},
			{Durability: new(catalog.Durability_DURABILITY_ASYNC)},
		}).Draw(t, "attributes"),
	}
	for range rapid.IntRange(0, 3).Draw(t, "alterations") {
		a.Request.Alterations = append(a.Request.Alterations, rapid.SampledFrom([]*wire.Alteration{
			{Add: &catalog.Column{Name: "b", Type: catalog.Type_TYPE_BOOL}}, {Drop: "b"}, {Drop: "k"}, {RenameFrom: "b", RenameTo: "c"}, {},
		}).Draw(t, "alteration"))
	}
	return a
}

func drawPart(t *rapid.T, cmd *Command, x *catalog.Index) {
	groups := append(groupsOf(x), &catalog.Tablet{Id: 77})
	g := rapid.SampledFrom(groups).Draw(t, "group")
	node := rapid.Uint64Range(0, 7)
	switch rapid.IntRange(0, 3).Draw(t, "part") {
	case 0:
		cmd.Dead = append(cmd.Dead, node.Draw(t, "dead"))
	case 1:
		cmd.Nodes = append(cmd.Nodes, &catalog.Node{Id: node.Draw(t, "node"), DirectoryId: []byte("directory of b:1"), RpcAddr: "b:2", Incarnation: node.Draw(t, "life")})
	case 2:
		p := &Plan{
			Kind: Plan_Kind(rapid.IntRange(0, 5).Draw(t, "plan")), Group: g.Id,
			BasedOn: g.Version + rapid.SampledFrom([]uint64{0, 0, 0, 1}).Draw(t, "stale"), Node: node.Draw(t, "node"),
		}
		if len(g.Replicas) > 0 {
			p.Replica = rapid.SampledFrom(g.Replicas).Draw(t, "victim").Id
		}
		cmd.Plans = append(cmd.Plans, p)
	case 3:
		o := &Observed{Group: g.Id, Applied: g.ConfigIndex + rapid.Uint64Range(0, 3).Draw(t, "applied")}
		for r := range g.Members() {
			if rapid.IntRange(0, 5).Draw(t, "in") > 0 {
				o.Config = append(o.Config, &catalog.Replica{Id: r.Id, Node: r.Node, Role: catalog.Role(rapid.IntRange(0, 2).Draw(t, "role"))})
			}
		}
		if rapid.IntRange(0, 5).Draw(t, "stranger") == 0 {
			o.Config = append(o.Config, &catalog.Replica{Id: rapid.Uint64Range(0, 40).Draw(t, "id"), Node: node.Draw(t, "on"), Role: catalog.Role_ROLE_VOTER})
		}
		cmd.Observed = append(cmd.Observed, o)
	}
}

func FuzzApply(f *testing.F) {
	cmd, _ := (&Command{Version: 1, Found: &Found{Catalog: FirstCatalog("c", []*catalog.Node{self("a:1")}, First{})}}).MarshalVT()
	f.Add(cmd)
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, data []byte) {
		m := NewMachine()
		if _, err := m.Apply(1, cmd); err != nil {
			t.Fatal(err)
		}
		if _, err := m.Apply(2, data); err != nil {
			return
		}
		if err := catalog.Validate(m.Index().Catalog()); err != nil {
			t.Fatal(err)
		}
	})
}

func FuzzDecodeState(f *testing.F) {
	m := NewMachine()
	cmd, _ := (&Command{Version: 1, Found: &Found{Catalog: FirstCatalog("c", []*catalog.Node{self("a:1")}, First{})}}).MarshalVT()
	if _, err := m.Apply(1, cmd); err != nil {
		f.Fatal(err)
	}
	state, _ := m.Encode()
	f.Add(state)
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, data []byte) {
		m, err := DecodeState(data)
		if err != nil {
			return
		}
		if _, err := m.Apply(1, cmd); err != nil {
			t.Fatal(err)
		}
	})
}
