package sometimes

import "testing"

var (
	here  = Point("test: here")
	there = Point("test: there")
)

func TestPointsAreCountedOnlyWhenAsked(t *testing.T) {
	here.Reach()
	if here.n.Load() != 0 {
		t.Fatal("a point counts though nobody asked")
	}
	Count()
	here.Reach()
	here.Reach()
	all := All()
	if len(all) != 2 || all[0] != (Reached{"test: here", 2}) || all[1] != (Reached{"test: there", 0}) {
		t.Fatalf("counted %v", all)
	}
	Count()
	if All()[0].Times != 0 {
		t.Fatal("counting does not begin at zero")
	}
	there.Reach()
}

func TestNamesAreUnique(t *testing.T) {
	defer func() {
		if recover() == nil {
			t.Fatal("two points of one name")
		}
	}()
	Point("test: here")
}

func TestAPointNamesItsRoom(t *testing.T) {
	if room := (Reached{Name: "test: here"}).Room(); room != "test" {
		t.Fatalf("the room is %q", room)
	}
	defer func() {
		if recover() == nil {
			t.Fatal("a point without a room")
		}
	}()
	Point("nowhere")
}

func BenchmarkReachUncounted(b *testing.B) {
	counting.Store(false)
	for b.Loop() {
		here.Reach()
	}
}
