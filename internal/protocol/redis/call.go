package redis

import (
	"github.com/braiddb/braid/client"
)

// call is one command under way. Calls belong to a connection and are used again
// (but see I2); a lone command therefore costs no more than its operation.
type call struct {
	cmd  *command
	args [][]byte // args[0] is the name
	s    *Server
	now  int64 // milliseconds since the Unix epoch, for relative expiries

	// Filled by build.
	ops   []*client.Op
	reply func(w *writer, k *call) // nil: the only result as it is
	n     int64                    // for reply
	flag  bool                     // for reply

	// Filled when it is done: one result per operation.
	results []*client.Result
	bytes   int64  // of Server.underWay, until it is done
	copies  uint32 // replicas known to hold what was written, 0: nothing was
	lost    bool   // failed otherwise than by an answer: somebody may still hold the arguments

	one   [1]*client.Op
	oneIs [1]*client.Result
	done  func(client.Reply, error)
}

// do says that the command is one operation, and how its result is rendered.
func (k *call) do(op *client.Op, reply func(w *writer, k *call)) error {
	k.one[0] = op
	k.ops = k.one[:]
	k.reply = reply
	return nil
}

// reset makes a call ready for build or run.
func (k *call) reset() {
	k.ops, k.results, k.reply = nil, nil, nil
	k.n, k.flag, k.copies, k.lost = 0, false, 0, false
}

// forget lets go of what the call referred to. A call that had very many
// arguments does not keep their room.
func (k *call) forget() {
	k.one[0], k.oneIs[0] = nil, nil
	k.ops, k.results = nil, nil
	if cap(k.args) > 1024 {
		k.args = nil
	}
}

// settled takes the answer of the call's operations.
func (k *call) settled(r client.Reply, err error) {
	switch {
	case err != nil:
		k.lost = true
		k.fail(failure(err))
	case len(r.Results) != len(k.ops):
		k.fail(broken("an answer of another length than the question"))
	default:
		k.results, k.copies = r.Results, r.Copies
	}
}

// result is that of the only operation.
func (k *call) result() *client.Result { return k.results[0] }

// fail settles the call without an operation.
func (k *call) fail(r *client.Result) {
	k.oneIs[0] = r
	k.results = k.oneIs[:]
	k.ops = nil
}

// writes reports whether the command may change documents.
func (k *call) writes() bool { return k.cmd.flags&write != 0 }

// render writes the reply of a call that is done and reports whether it is one of success.
func (k *call) render(w *writer) bool {
	if len(k.results) == 1 && k.results[0].Kind == client.KindError {
		w.error(errorLine(k.results[0]))
		return false
	}
	if k.reply == nil {
		k.renderResult(w, k.results[0])
	} else {
		k.reply(w, k)
	}
	return true
}

// renderResult writes one result as its kind says.
func (k *call) renderResult(w *writer, r *client.Result) {
	switch r.Kind {
	case client.KindNil:
		w.null()
	case client.KindOK:
		w.ok()
	case client.KindInt:
		w.int(r.Int)
	case client.KindBytes:
		w.bulk(r.Bytes)
	case client.KindDouble:
		w.double(r.Double)
	case client.KindArray:
		w.array(len(r.Items))
		for _, item := range r.Items {
			k.renderResult(w, item)
		}
	case client.KindBool:
		w.int(map[bool]int64{true: 1}[r.Int != 0])
	default:
		w.error(errorLine(r))
	}
}

// firstError is the first error among results, nil if there is none.
func (k *call) firstError() *client.Result {
	for _, r := range k.results {
		if r.Kind == client.KindError {
			return r
		}
	}
	return nil
}

// Replies that several families share.

// replyOK says OK whatever the result.
func replyOK(w *writer, _ *call) { w.ok() }

// replySum adds up the integers of all operations.
func replySum(w *writer, k *call) {
	if e := k.firstError(); e != nil {
		w.error(errorLine(e))
		return
	}
	var n int64
	for _, r := range k.results {
		n += r.Int
	}
	w.int(n)
}

// replyAllOK says OK if no operation failed.
func replyAllOK(w *writer, k *call) {
	if e := k.firstError(); e != nil {
		w.error(errorLine(e))
		return
	}
	w.ok()
}

// replySet renders an array as a set.
func replySet(w *writer, k *call) {
	items := k.result().Items
	w.set(len(items))
	for _, item := range items {
		k.renderResult(w, item)
	}
}

// replyMap renders an array of pairs as a map.
func replyMap(w *writer, k *call) {
	items := k.result().Items
	w.dict(len(items) / 2)
	for _, item := range items {
		k.renderResult(w, item)
	}
}
