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
	return p.kind == explicit || p.kind == plain && p.id%3 != 0
}

// options are how a plain producer appends.
func (p *producer) options() []client.AppendOption {
	if p.inOrder() {
		return nil
	}
	return []client.AppendOption{client.AnyOrder()}
}

var errOrder = errors.New("appends of one producer are not in the order in which it began them")

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
		if p.t != t || !p.inOrder() {
			continue
		}
		last, lastLSN, found := "", logs.LSNInvalid, 0
		for n := uint64(1); n <= p.n; n++ {
			payload := fmt.Sprintf("p%d.%d", p.id, n)
			lsn, known := at[payload]
			if !known {
				continue
			}
			if lsn < lastLSN || lsn == lastLSN && slices.Index(t.told[lsn], payload) < slices.Index(t.told[lsn], last) {
				return fmt.Errorf("log %d: %w: %q is at %s, and %q at %s", t.id, errOrder, payload, lsn, last, lastLSN)
			}
			if lsn.Epoch() > lastLSN.Epoch() && found > 0 {
				t.c.w.Sometimes("append: a stream goes on in another epoch")
			}
			last, lastLSN = payload, lsn
			found++
		}
	}
	return nil
}
