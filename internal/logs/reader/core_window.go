package reader

// window is the flow control: how far up, and how much, shards may send.
type window struct {
	size  uint64
	low   LSN // taken when high was set
	high  LSN // R5: what shards may send up to
	taken LSN // the application has everything below
	widen uint64

	slotted int // bytes in slots
	told    int // bytes told and not taken
	asked   int // bytes that answers under way may bring
}

// above is a + n, but no more than the highest LSN.
func above(a LSN, n uint64) LSN {
	if s := a + LSN(n); s >= a {
		return s
	}
	return ^LSN(0)
}

func (w *window) open(from LSN, size uint64) {
	*w = window{size: size, low: from, taken: from, high: above(from, size-1)}
}

// take notes what the application took. The window moves once seven tenths of it
// are used up, so that it is not sent with every record.
func (w *window) take(next LSN, bytes int) {
	w.told -= bytes
	if next <= w.taken {
		return
	}
	w.taken = next
	if next-w.low >= LSN(w.size*7/10) {
		w.low = next
		w.high = max(w.high, above(next, w.size-1))
	}
}

// stretch makes the window reach further although nothing was taken: all that it
// spans is empty, and whether that is a gap, and of what kind, shows above it.
func (w *window) stretch() {
	w.widen = max(w.size, 2*w.widen)
	w.high = above(w.high, w.widen)
}

func (w *window) moved()             { w.widen = 0 }
func (w *window) hold(bytes int)     { w.slotted += bytes }
func (w *window) free(bytes int)     { w.slotted -= bytes }
func (w *window) holdTold(bytes int) { w.told += bytes }

// held is all that counts against the bound.
func (w *window) held() int { return w.slotted + w.told + w.asked }
