package check

import (
	"strings"
	"testing"
	"time"
)

func at(client int, call, ret int, o Outcome) Op {
	return Op{Client: client, Call: time.Duration(call), Return: time.Duration(ret), Outcome: o}
}

// says looks at a verdict: want is a part of the words, empty for "all is well".
func says(t *testing.T, name, want string, err error) {
	t.Helper()
	switch {
	case want == "" && err != nil:
		t.Errorf("%s: %v", name, err)
	case want != "" && (err == nil || !strings.Contains(err.Error(), want)):
		t.Errorf("%s: %v, want %q", name, err, want)
	}
}

func TestRegister(t *testing.T) {
	for _, c := range []struct {
		name, want string
		ops        []*RegisterOp
	}{
		{"a read sees the write before it", "", []*RegisterOp{
			{Op: at(1, 0, 10, OK), Kind: Write, Arg: 1}, {Op: at(2, 20, 30, OK), Kind: Read, Out: 1}}},
		{"a stale read", "not linearizable", []*RegisterOp{
			{Op: at(1, 0, 10, OK), Kind: Write, Arg: 1}, {Op: at(2, 20, 30, OK), Kind: Read}}},
		{"a read during the write may see it or not", "", []*RegisterOp{
			{Op: at(1, 0, 10, OK), Kind: Write, Arg: 1}, {Op: at(2, 5, 7, OK), Kind: Read}, {Op: at(3, 5, 8, OK), Kind: Read, Out: 1}}},
		{"a write of unknown outcome shows up late", "", []*RegisterOp{
			{Op: at(1, 0, 10, Unknown), Kind: Write, Arg: 1}, {Op: at(2, 20, 30, OK), Kind: Read}, {Op: at(2, 90, 95, OK), Kind: Read, Out: 1}}},
		{"and does not go away again", "not linearizable", []*RegisterOp{
			{Op: at(1, 0, 10, Unknown), Kind: Write, Arg: 1}, {Op: at(2, 20, 30, OK), Kind: Read, Out: 1}, {Op: at(2, 90, 95, OK), Kind: Read}}},
		{"a refused write is seen", "not linearizable", []*RegisterOp{
			{Op: at(1, 0, 10, None), Kind: Write, Arg: 1}, {Op: at(2, 20, 30, OK), Kind: Read, Out: 1}}},
		{"a swap tells what was there", "not linearizable", []*RegisterOp{
			{Op: at(1, 0, 10, OK), Kind: Write, Arg: 1}, {Op: at(2, 20, 30, OK), Kind: Swap, Arg: 2}}},
		{"two creations", "not linearizable", []*RegisterOp{
			{Op: at(1, 0, 10, OK), Kind: Create, Arg: 1, Done: true}, {Op: at(2, 5, 30, OK), Kind: Create, Arg: 2, Done: true}}},
		{"a creation, a deletion, a creation", "", []*RegisterOp{
			{Op: at(1, 0, 10, OK), Kind: Create, Arg: 1, Done: true}, {Op: at(2, 5, 30, OK), Kind: Create, Arg: 2, Done: true},
			{Op: at(3, 5, 30, OK), Kind: Delete, Done: true}}},
		{"a comparison that failed though nothing else was there", "not linearizable", []*RegisterOp{
			{Op: at(1, 0, 10, OK), Kind: Write, Arg: 1}, {Op: at(2, 20, 30, OK), Kind: Cas, Old: 1, Arg: 2}}},
		{"two comparisons with one value succeed", "not linearizable", []*RegisterOp{
			{Op: at(1, 0, 10, OK), Kind: Write, Arg: 1}, {Op: at(2, 20, 30, OK), Kind: Cas, Old: 1, Arg: 2, Done: true},
			{Op: at(3, 20, 30, OK), Kind: Cas, Old: 1, Arg: 3, Done: true}}},
	} {
		decided, err := Register(c.ops)
		if !decided {
			t.Errorf("%s: not decided", c.name)
		}
		says(t, c.name, c.want, err)
	}
}

func TestCounter(t *testing.T) {
	add := func(call, ret int, o Outcome, v int64) *CounterOp {
		return &CounterOp{Op: at(1, call, ret, o), Add: true, Value: v}
	}
	look := func(call, ret int, v int64) *CounterOp { return &CounterOp{Op: at(2, call, ret, OK), Value: v} }
	for _, c := range []struct {
		name, want string
		ops        []*CounterOp
		end        int64
	}{
		{"in order", "", []*CounterOp{add(0, 5, OK, 1), look(6, 7, 1), add(8, 9, OK, 2)}, 2},
		{"one value twice", "the counter became 1", []*CounterOp{add(0, 5, OK, 1), add(8, 9, OK, 1)}, 2},
		{"back in time", "after it had been 2", []*CounterOp{add(0, 5, OK, 1), add(6, 7, OK, 2), look(8, 9, 1)}, 2},
		{"applied twice", "increments were acknowledged", []*CounterOp{add(0, 5, OK, 2)}, 2},
		{"an unknown one counts or not", "", []*CounterOp{add(0, 5, OK, 1), add(6, 7, Unknown, 0), look(8, 9, 2)}, 2},
		{"lost in the end", "the counter ends at 1", []*CounterOp{add(0, 5, OK, 1), add(6, 7, OK, 2)}, 1},
		{"twice in the end", "the counter ends at 3", []*CounterOp{add(0, 5, OK, 1), add(6, 7, Unknown, 0)}, 3},
	} {
		err := Counter(c.ops)
		if err == nil {
			err = CounterEnd(c.ops, c.end)
		}
		says(t, c.name, c.want, err)
	}
}

func TestSet(t *testing.T) {
	add := func(call, ret int, o Outcome, v int64) *SetOp { return &SetOp{Op: at(1, call, ret, o), Add: v} }
	read := func(call, ret int, members ...int64) *SetOp {
		return &SetOp{Op: at(2, call, ret, OK), Members: members}
	}
	for _, c := range []struct {
		name, want string
		ops        []*SetOp
	}{
		{"all there", "", []*SetOp{add(0, 5, OK, 1), add(6, 7, Unknown, 2), read(8, 9, 1, 2)}},
		{"an unknown one may be missing", "", []*SetOp{add(0, 5, OK, 1), add(6, 7, Unknown, 2), read(8, 9, 1)}},
		{"lost", "the set lacks 1", []*SetOp{add(0, 5, OK, 1), read(8, 9)}},
		{"under way", "", []*SetOp{add(0, 5, OK, 1), read(4, 9)}},
		{"invented", "which nobody added", []*SetOp{read(8, 9, 4)}},
		{"refused", "whose addition was refused", []*SetOp{add(0, 5, None, 1), read(8, 9, 1)}},
		{"ahead of its time", "before it was added", []*SetOp{read(1, 2, 1), add(5, 9, OK, 1)}},
	} {
		says(t, c.name, c.want, Set(c.ops))
	}
}

func TestLists(t *testing.T) {
	push := func(call, ret int, o Outcome, list int, v, length int64) *ListTxn {
		return &ListTxn{Op: at(1, call, ret, o), Appends: []ListAppend{{list, v, length}}}
	}
	read := func(call, ret int, reads ...ListRead) *ListTxn {
		return &ListTxn{Op: at(2, call, ret, OK), Reads: reads}
	}
	for _, c := range []struct {
		name, want string
		txns       []*ListTxn
	}{
		{"in order", "", []*ListTxn{push(0, 5, OK, 1, 10, 1), push(6, 7, OK, 1, 11, 2), read(8, 9, ListRead{1, []int64{10, 11}})}},
		{"two orders", "no one order", []*ListTxn{push(0, 5, OK, 1, 10, 1), push(0, 7, OK, 1, 11, 2),
			read(8, 9, ListRead{1, []int64{10, 11}}), read(8, 9, ListRead{1, []int64{11}})}},
		{"twice", "holds 10 twice", []*ListTxn{push(0, 5, OK, 1, 10, 1), read(8, 9, ListRead{1, []int64{10, 10}})}},
		{"invented", "nobody appended", []*ListTxn{read(8, 9, ListRead{1, []int64{10}})}},
		{"refused", "whose append was refused", []*ListTxn{push(0, 5, None, 1, 10, 0), read(8, 9, ListRead{1, []int64{10}})}},
		{"another place", "was told to be number 2", []*ListTxn{push(0, 5, OK, 1, 10, 2), read(8, 9, ListRead{1, []int64{10}})}},
		{"lost under another", "was acknowledged as number 1", []*ListTxn{push(0, 5, OK, 1, 10, 1), push(6, 7, OK, 1, 11, 1),
			read(8, 9, ListRead{1, []int64{11}})}},
		{"lost", "a cycle", []*ListTxn{push(0, 5, OK, 1, 10, 1), read(6, 7, ListRead{1, nil}), read(8, 9, ListRead{1, []int64{10}})}},
		{"stale", "a cycle", []*ListTxn{push(0, 5, OK, 1, 10, 1), push(6, 7, OK, 1, 11, 2),
			read(8, 9, ListRead{1, []int64{10}}), read(10, 11, ListRead{1, []int64{10, 11}})}},
		{"long fork", "a cycle", []*ListTxn{push(0, 50, OK, 1, 10, 1), push(0, 50, OK, 2, 20, 1),
			read(10, 40, ListRead{1, []int64{10}}, ListRead{2, nil}), read(10, 40, ListRead{1, nil}, ListRead{2, []int64{20}}),
			read(60, 70, ListRead{1, []int64{10}}, ListRead{2, []int64{20}})}},
		{"half a transaction", "a cycle", []*ListTxn{
			{Op: at(1, 0, 50, OK), Appends: []ListAppend{{1, 10, 1}, {2, 20, 1}}},
			read(10, 40, ListRead{1, []int64{10}}, ListRead{2, nil}), read(60, 70, ListRead{1, []int64{10}}, ListRead{2, []int64{20}})}},
	} {
		says(t, c.name, c.want, Lists(c.txns))
	}
}

func TestBank(t *testing.T) {
	read := func(o Outcome, accounts ...int64) *BankRead { return &BankRead{Op: at(1, 0, 1, o), Accounts: accounts} }
	says(t, "whole", "", Bank([]*BankRead{read(OK, 3, -3), read(OK, 0, 0), read(Unknown, 7)}, 0))
	says(t, "half a transfer", "together 3 of 0", Bank([]*BankRead{read(OK, 3, 0)}, 0))
}
