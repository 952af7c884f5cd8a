package client

import (
	"context"
	"errors"
	"time"

	"github.com/braiddb/braid/internal/catalog"
	"github.com/braiddb/braid/internal/logs"
	"github.com/braiddb/braid/internal/logs/reader"
	"github.com/braiddb/braid/internal/wire"
)

// removedLook is how often it is looked whether a log that is read is still there.
// The shards do not say: they keep what was removed for a grace time, and serve it,
// and later have nothing of it, as they have nothing of a log at its end.
const removedLook = 5 * time.Second

// lookForLog ends reading where the log was removed: the list of logs, of which all
// readers of a client share one reading, has it no more, and then the sequencer says
// so too, which has the last word.
func (r *Reader) lookForLog() {
	r.mu.Lock()
	due := r.mu.existsAt != 0 && r.now() >= r.mu.existsAt && !r.mu.closed && !r.mu.done
	if due {
		r.mu.existsAt = 0
	}
	r.mu.Unlock()
	if !due {
		return
	}
	r.inBackground(func() {
		c := r.log.client
		tree, err := c.logTree.recent(c.ctx, c, removedLook)
		if err == nil {
			if _, there := tree.Attributes(uint64(r.log.id)); !there {
				if _, _, err := r.log.metadata(c.ctx, logs.EpochMin, false); endOf(err) != logs.GapUnknown {
					r.post(reader.Metadata{End: endOf(err)})
					return
				}
			}
		}
		r.mu.Lock()
		r.mu.existsAt = r.now() + removedLook
		r.mu.Unlock()
	})
}

// endOf is the gap to the end of a log that cannot be read, GapUnknown where the
// error does not say that.
func endOf(err error) logs.GapType {
	var refused *LogError
	if errors.As(err, &refused) {
		switch refused.Status {
		case wire.LogStatus_LOG_STATUS_NOT_FOUND:
			return logs.GapNotInConfig
		case wire.LogStatus_LOG_STATUS_ACCESS:
			return logs.GapAccess
		}
	}
	return logs.GapUnknown
}

// recent gives a copy of the list of logs that was asked for at most age ago.
func (t *logTree) recent(ctx context.Context, c *Client, age time.Duration) (*catalog.Logs, error) {
	t.mu.Lock()
	tree, asked := t.mu.logs, t.mu.asked
	t.mu.Unlock()
	if tree != nil && c.opts.Clock.Now().Sub(asked) < age {
		return tree, nil
	}
	return t.read(ctx, c, 0)
}
