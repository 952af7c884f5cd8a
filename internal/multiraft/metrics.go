package multiraft

import "sync/atomic"

// Metrics counts what a host did since it started. Every field may be read at
// any time.
type Metrics struct {
	EntriesProposed   atomic.Uint64 // entries appended to logs of groups led here
	WritesProposed    atomic.Uint64 // writes in those entries
	ProposalsDropped  atomic.Uint64 // entries that Raft refused, without effect
	ProposalsExpired  atomic.Uint64 // writes that had waited too long to be proposed
	Overloaded        atomic.Uint64 // proposals refused because too many bytes wait
	EntriesApplied    atomic.Uint64 // committed entries applied here
	AppendsSent       atomic.Uint64 // messages with entries, and probes, to followers
	CommitsHeldBack   atomic.Uint64 // messages saved: they would have carried a commit index alone
	CommitsAlone      atomic.Uint64 // messages that carried a commit index alone; stays 0
	GroupBeats        atomic.Uint64 // heartbeats of groups, sent inside the beat between two nodes
	BatchesSent       atomic.Uint64 // batches of messages to peer nodes
	EnvelopesSent     atomic.Uint64 // messages in those batches
	Turns             atomic.Uint64 // turns of all loops
	JournalAppends    atomic.Uint64 // appends handed to the journal, one per turn at most
	Campaigns         atomic.Uint64 // elections begun here
	Elected           atomic.Uint64 // elections won here
	Deposed           atomic.Uint64 // leaderships that ended here
	Transfers         atomic.Uint64 // hand-overs begun here
	Abdications       atomic.Uint64 // hand-overs that failed, so that the leader resigned
	VotesWithheld     atomic.Uint64 // votes not considered because of a promise or a restart
	PromisesLapsed    atomic.Uint64 // promises to peers that ran out unrenewed
	LeasesLapsed      atomic.Uint64 // beats at which a leader here had no lease
	SkewRefused       atomic.Uint64 // batches and beats refused because of the sender's clock
	Strays            atomic.Uint64 // messages for replicas that are not here
	MailDropped       atomic.Uint64 // messages dropped because too many wait for a loop
	RaftRefused       atomic.Uint64 // messages that Raft refused to take
	DiskStalls        atomic.Uint64 // beats at which the journal was overdue
	LogsCutShort      atomic.Uint64 // logs cut although a follower still needed entries
	SnapshotsSent     atomic.Uint64 // snapshot streams begun
	SnapshotsFailed   atomic.Uint64 // snapshot streams that broke
	SnapshotsRestored atomic.Uint64 // snapshots taken over
	TailsDoubted      atomic.Uint64 // groups that started with a suspect journal tail
	TailsLost         atomic.Uint64 // of those, groups whose peers knew of more
}
