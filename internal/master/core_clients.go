package master

import (
	"bytes"
	"time"

	"github.com/braiddb/braid/internal/hlc"
	"github.com/braiddb/braid/internal/wire"
)

// Bounds of what is remembered of requests. A client that was not heard of for
// rememberFor is forgotten: no client retries for as long.
const (
	rememberFor    = 660 * time.Second
	clientsMax     = 1024
	perClientMax   = 64
	clientIDLenMax = 64
)

// clients is what is remembered of requests (M3), in order of last use. It is
// replicated state: all that enters is in the entries.
type clients struct{ list []*Client }

func (c *clients) position(id []byte) int {
	for i, k := range c.list {
		if bytes.Equal(k.Id, id) {
			return i
		}
	}
	return -1
}

// find gives the outcome of a request that was carried out before, or the
// refusal of one that is too old to know.
func (c *clients) find(id []byte, request uint64) (*Outcome, bool) {
	if len(id) == 0 {
		return nil, false
	}
	i := c.position(id)
	if i < 0 {
		return nil, false
	}
	for _, done := range c.list[i].Done {
		if done.RequestId == request {
			return done, true
		}
	}
	if request <= c.list[i].Floor {
		return &Outcome{RequestId: request, Error: refuse(wire.Code_CODE_REQUEST_EXPIRED,
			"request %d is older than what the master remembers of this client", request)}, true
	}
	return nil, false
}

// remember keeps an outcome and forgets what is out of bounds. Forgetting one
// request of a client raises its floor, so that it is refused and not repeated.
func (c *clients) remember(at hlc.Timestamp, id []byte, request uint64, done *Outcome) {
	for len(c.list) > 0 && at.Sub(hlc.Timestamp(c.list[0].HybridTime)) > rememberFor {
		c.list = c.list[1:]
	}
	if len(id) == 0 || len(id) > clientIDLenMax {
		return
	}
	client := &Client{Id: id}
	if i := c.position(id); i >= 0 {
		client = c.list[i]
		c.list = append(c.list[:i:i], c.list[i+1:]...)
	} else if len(c.list) >= clientsMax {
		c.list = c.list[1:]
	}
	client.HybridTime = uint64(at)
	client.Done = append(client.Done, done)
	if len(client.Done) > perClientMax {
		oldest := 0
		for i, d := range client.Done {
			if d.RequestId < client.Done[oldest].RequestId {
				oldest = i
			}
		}
		client.Floor = max(client.Floor, client.Done[oldest].RequestId)
		client.Done = append(client.Done[:oldest:oldest], client.Done[oldest+1:]...)
	}
	c.list = append(c.list, client)
}
