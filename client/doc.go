// Package client is the Go API of Braid's tables and logs. Of a table it finds the tablet that owns
// a key, speaks to the tablet's leader, and repeats a request, under the same
// request id, until it is answered: every write takes effect at most once, and
// exactly once when it is answered.
//
//	Table.Start ── routes.find(hash) ── Transport.StartWrite ── leader
//	    │              ▲                        │
//	    │              └── refresh (one at a time, by Transport.Locations)
//	    └── not leader, lost, unreachable: next node, back off, same request id
//
// A Client is made by Connect, over the network, or by New, over any Transport:
// a node gives its front ends one that calls straight in where it leads.
//
// # Logs
//
//	c, err := client.Connect(ctx, []string{"127.0.0.1:7200"}, client.Options{})
//	info, err := c.CreateLogs(ctx, "/events/clicks", 1, client.LogParents())
//	clicks, err := c.Log(ctx, "/events/clicks")
//	lsn, err := clicks.Append(ctx, []byte("home"))
//
//	r := clicks.NewReader(client.ReaderOptions{From: lsn})
//	defer r.Close()
//	for e, err := range r.All(ctx) { // waits for what comes, until the context ends
//		…
//	}
//
// Log.Append waits for a record, Log.AppendAsync does not, Log.AppendIf appends only
// behind a given tail. BufferedWriter makes one record of many payloads. A
// LogProducer has ids and sequences that outlive the process. Reader gives every LSN
// once, as a Record or as a Gap; CheckpointedReader remembers in a table how far it
// came. Log.FindTime, FindKey, Tail, HeadAttributes, DataSize and Trim ask and change
// a log; CreateLogs, AlterLog and their like change the tree of logs.
//
// What is guaranteed:
//
//   - An append that returned an LSN is on disk, fsynced, on every node of one copyset.
//   - An append is in the log at most once, however often the Client had to send it; a
//     LogProducer's however often anybody sends it, until all its records are trimmed
//     and the last of them is 7 days old.
//   - Appends of one Log that a goroutine begins one after another reach the sequencer in
//     that order, and their LSNs ascend, across failover too; only one that ended with an
//     unknown outcome may yet come behind later ones. Where data was lost one may end so
//     because a later one was kept. See Log; who needs answers sooner
//     has AnyOrder, and a BufferedWriter keeps order in its mode Stream.
//   - A Reader tells every LSN from where it began exactly once, ascending. Records that
//     were there and cannot be read any more are a gap of type GapDataLoss, and never
//     just missing.
//   - Record.Offset never repeats or goes back; it may leave numbers out.
//
// An append fails with a *LogError. Its OutcomeKnown says whether the record is
// certainly not in the log: if it is false (the error is ErrUnknownOutcome too), to
// append again may put a second one there; a LogProducer may always append again under
// the same sequence. One that was sent again after the log was trimmed above it may end
// so at once. Retriable says that the same request may succeed later. errors.Is
// works with ErrConditionFailed (LogError.Tail is the tail), ErrOverloaded (too much
// under way: nothing was appended), ErrTooLarge, ErrNotFound, ErrDiskFull,
// ErrSequenceGap, ErrSequenceStale and the others in errors.go. A Reader fails with
// ErrTimeout when its context ends and nodes that may hold the next record do not
// answer; Reader.Health says which. ErrPartial is of answers that hold although not
// all nodes were heard.
//
// Of a log the client finds the sequencer: by weighted consistent hashing in a view of
// the cluster that it keeps, by redirects where that is old. Appends begun one after
// another are sent in that order, and sent again in that order, under the same
// sequences, when something goes wrong; logQueue has the picture and the invariants
// (A1..).
//
//	Log.Append ── logQueue ── logRouter: view, redirects ── LogTransport ── sequencer
//	    ▲            ▲  │
//	    │            │  └── refused, lost: back to the first that is not answered
//	BufferedWriter ──┘
//
// # Invariants of requests to tables
//
//	I1. A request keeps its id through all of its attempts, and the id is given
//	    to nothing else, so a tablet that remembers it answers the original result.
//	I2. first_running, sent with every write, is at or below the id of each
//	    request to that tablet that is still under way, and never goes back.
//	I3. A request object is not changed once it was handed to the transport.
//	I4. done is called exactly once, whatever happens.
//	I5. Requests started by one goroutine for one key reach the tablet in that
//	    order as long as no attempt fails.
//	I6. A write whose effect is uncertain ends with ErrUnknownOutcome, never
//	    with an error that says it had none.
package client
