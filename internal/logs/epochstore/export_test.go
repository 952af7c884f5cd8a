package epochstore

// Session is the id of the session with ZooKeeper.
func (z *ZooKeeper) Session() int64 { return z.conn.SessionID() }

// Encode and Decode are the record's format.
var (
	Encode = encode
	Decode = decode
)
