package catalog

import (
	"errors"
	"testing"

	"pgregory.net/rapid"
)

func orders() *Schema { return sound().Tables[1].Schema }

func TestAlterations(t *testing.T) {
	s := orders()
	before := s.CloneVT()
	added, err := s.AddColumn(&Column{Name: "note", Type: Type_TYPE_STRING, Id: 1})
	if err != nil {
		t.Fatal(err)
	}
	if c := added.Column("note"); c == nil || c.Id != 4 || c.Kind != ColumnKind_COLUMN_KIND_REGULAR || added.Version != 2 || added.NextColumnId != 5 {
		t.Errorf("added: %v", added)
	}
	dropped, err := added.DropColumn("note")
	if err != nil {
		t.Fatal(err)
	}
	again, err := dropped.AddColumn(&Column{Name: "note", Type: Type_TYPE_INT64})
	if err != nil {
		t.Fatal(err)
	}
	if c := again.Column("note"); c.Id != 5 {
		t.Errorf("a dropped column's id %d was given again", c.Id)
	}
	renamed, err := again.RenameColumn("customer", "buyer")
	if err != nil {
		t.Fatal(err)
	}
	if c := renamed.Column("buyer"); c == nil || c.Id != 1 || renamed.Version != 5 || renamed.ColumnByID(1) != c {
		t.Errorf("renamed: %v", renamed)
	}
	if again.Column("customer") == nil || !s.EqualVT(before) {
		t.Error("an alteration changed the version before it")
	}
}

func TestAlterationsRefused(t *testing.T) {
	add := func(c *Column) error { _, err := orders().AddColumn(c); return err }
	drop := func(name string) error { _, err := orders().DropColumn(name); return err }
	rename := func(from, to string) error { _, err := orders().RenameColumn(from, to); return err }
	for _, c := range []struct {
		what string
		got  error
		want error
	}{
		{"add an existing one", add(&Column{Name: "total", Type: Type_TYPE_INT64}), ErrColumnExists},
		{"add a key column", add(&Column{Name: "x", Type: Type_TYPE_INT64, Kind: ColumnKind_COLUMN_KIND_RANGE}), ErrKeyColumn},
		{"add without a type", add(&Column{Name: "x"}), ErrColumnInvalid},
		{"add without a name", add(&Column{Type: Type_TYPE_INT64}), ErrColumnInvalid},
		{"add nothing", add(nil), ErrColumnInvalid},
		{"drop a hash column", drop("customer"), ErrKeyColumn},
		{"drop a range column", drop("at"), ErrKeyColumn},
		{"drop what is not there", drop("x"), ErrNoSuchColumn},
		{"rename what is not there", rename("x", "y"), ErrNoSuchColumn},
		{"rename to an existing one", rename("total", "at"), ErrColumnExists},
		{"rename to itself", rename("total", "total"), ErrColumnExists},
		{"rename to nothing", rename("total", ""), ErrColumnInvalid},
	} {
		if !errors.Is(c.got, c.want) {
			t.Errorf("%s: got %v, want %v", c.what, c.got, c.want)
		}
	}
}

// Whatever is done to a schema, C4 holds, versions grow by one and no column id
// comes back with another meaning.
func TestAlteringKeepsC4(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := orders()
		typeOf := map[uint32]Type{}
		names := rapid.SampledFrom([]string{"customer", "at", "total", "a", "b", ""})
		for range rapid.IntRange(1, 30).Draw(t, "steps") {
			var next *Schema
			var err error
			switch rapid.IntRange(0, 2).Draw(t, "what") {
			case 0:
				next, err = s.AddColumn(&Column{Name: names.Draw(t, "name"), Type: Type(rapid.IntRange(0, 9).Draw(t, "type"))})
			case 1:
				next, err = s.DropColumn(names.Draw(t, "name"))
			case 2:
				next, err = s.RenameColumn(names.Draw(t, "from"), names.Draw(t, "to"))
			}
			if err != nil {
				continue
			}
			if err := validateSchema(next); err != nil {
				t.Fatal(err)
			}
			if next.Version != s.Version+1 {
				t.Fatalf("version %d after %d", next.Version, s.Version)
			}
			for _, c := range next.Columns {
				if was, ok := typeOf[c.Id]; ok && was != c.Type {
					t.Fatalf("column id %d was %v and is %v", c.Id, was, c.Type)
				}
				typeOf[c.Id] = c.Type
			}
			s = next
		}
	})
}
