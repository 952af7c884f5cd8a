package logs

import (
	"errors"
	"fmt"
	"slices"

	"github.com/braiddb/braid/client"
	"github.com/braiddb/braid/internal/logs"
)

// Order: what a producer began one after another is in its log in that order, across
// every failover, but for producers that want their answers sooner.

// inOrder says whether a producer's appends are to be kept in order. Conditional ones
// fail instead.
func (p *producer) inOrder() bool {
	return p.kind == explicit || p.kind == plain && !p.hasty
}

// options are how a plain producer appends.
func (p *producer) options() []client.AppendOption {
	if p.inOrder() {
		return nil
	}
	return []client.AppendOption{client.AnyOrder()}
}

var errOrder = errors.New("appends of one producer are not in the order in which it began them")

// sending is when a producer began an append, counted over its appends: one that failed
// may have been begun again by the caller, behind others.
type sending struct {
	payload     string
	first, last int
}

// sends notes that append n begins, or begins again.
func (p *producer) sends(n uint64, payload string) {
	p.begun++
	if n > uint64(len(p.sent)) {
		p.sent = append(p.sent, sending{payload: payload, first: p.begun})
	}
	p.sent[n-1].last = p.begun
}

// kept says that producers' appends are in order, those that were answered: one that was
// given up, its outcome unknown, may be stored by whoever held it then, behind later ones.
func (t *truth) kept() error {
	at := make(map[string]logs.LSN, len(t.acked))
	for lsn, list := range t.acked {
		for _, p := range list {
			at[p] = lsn
		}
	}
	for _, p := range t.c.producers {
		if p.t == t && p.inOrder() {
			crossed, err := t.inOrder(p, at)
			if err != nil {
				return err
			}
			if crossed {
				t.c.w.Sometimes("append: a stream goes on in another epoch")
			}
		}
	}
	return nil
}

// inOrder says that each append of a producer is behind all whose last beginning was
// before its first, and whether they went on in another epoch.
func (t *truth) inOrder(p *producer, at map[string]logs.LSN) (crossed bool, err error) {
	var sent []sending // in order of first
	for _, s := range p.sent {
		if at[s.payload] != logs.LSNInvalid {
			sent = append(sent, s)
		}
	}
	over := slices.Clone(sent)
	slices.SortFunc(over, func(a, b sending) int { return a.last - b.last })
	behind := func(a, b string) bool { // a behind b in the log
		return at[a] > at[b] || at[a] == at[b] && slices.Index(t.told[at[a]], a) > slices.Index(t.told[at[b]], b)
	}
	furthest := ""
	for _, s := range sent {
		for ; len(over) > 0 && over[0].last < s.first; over = over[1:] {
			if furthest == "" || behind(over[0].payload, furthest) {
				furthest = over[0].payload
			}
		}
		if furthest == "" {
			continue
		}
		if behind(furthest, s.payload) {
			return false, fmt.Errorf("log %d: %w: %q is at %s, and %q at %s", t.id, errOrder, s.payload, at[s.payload], furthest, at[furthest])
		}
		crossed = crossed || at[s.payload].Epoch() > at[furthest].Epoch()
	}
	return crossed, nil
}
