package logs

// Doubt is what a shard may have lost of a log, as far as it is known.
type Doubt struct {
	Number   uint64 // of the newest doubt of the shard that this takes account of, 0: there was none
	From, To LSN    // may be lost, both included; nothing if From is above To
	Clean    Epoch  // up to here recovery's decisions are known
	Trim     LSN    // up to here only what records say of their producers is needed
}

// Compared says what came of it that the other shards were asked about a doubt.
type Compared struct {
	Doubt uint64 // that it was begun for: of a later one it says nothing
	Clean Epoch  // when others were asked, as in Doubt
	UpTo  LSN    // of what is below or at it, nothing is in doubt any more
	Weak  bool   // nobody could tell all that was there
	// From and To span what recovery decided on and nobody showed, if it is weak. 0: nothing.
	From, To LSN
}
