package journal

import (
	"errors"
)

// wake lets the maintenance goroutine look around.
func (j *Journal) wake() {
	select {
	case j.wakeup <- struct{}{}:
	default:
	}
}

// maintain does what may take long and must not hold up a group: it keeps one
// segment prepared, lets go of unneeded ones, has laggards written forward,
// watches the disk's free space and reports pressure.
func (j *Journal) maintain() {
	defer j.workers.Done()
	for range j.wakeup {
		if j.failed.Load() {
			continue
		}
		j.keepSpare()
		j.tidy()
		j.forwardLaggards()
		j.pressure()
	}
}

// keepSpare prepares the next segment if there is none, or none large enough.
func (j *Journal) keepSpare() {
	b := &j.books
	b.Lock()
	size := max(b.want, j.o.SegmentBytes)
	if b.spare != nil && b.spare.seg.size >= size {
		b.Unlock()
		return
	}
	if b.spare != nil { // too small: it is put back, for generations must grow
		b.closing = append(b.closing, b.spare.file)
		b.free = append(b.free, b.spare.seg)
		b.spare = nil
	}
	var reuse *segment
	if n := len(b.free); n > 0 && size == j.o.SegmentBytes {
		reuse = b.free[0]
		b.free = b.free[1:]
	}
	gen := b.nextGen
	b.nextGen++
	bound := reuse == nil && size == j.o.SegmentBytes && len(b.live)+len(b.leaving)+len(b.free) >= j.o.SegmentsMax
	b.Unlock()

	var made *openSegment
	err := ErrNoSpace
	if !bound {
		made, err = j.shelf.prepare(gen, size, reuse)
	}
	if err != nil && !errors.Is(err, ErrNoSpace) && !isNoSpace(err) {
		j.fail(err)
		return
	}
	b.Lock()
	defer b.Unlock()
	switch {
	case err == nil:
		b.spare, b.stuck, b.bound, b.wantErr = made, false, false, nil
	case size > j.o.SegmentBytes:
		b.wantErr = err
		if b.want == 0 {
			b.wantErr = nil
		}
	default:
		b.stuck, b.bound = true, bound
	}
	j.setFull()
	b.changed.Broadcast()
}

// setFull decides whether space is short, and whether all entries are refused. The books are
// locked.
func (j *Journal) setFull() {
	full := j.books.stuck || j.books.lowSpace
	j.noDisk.Store(j.books.stuck && !j.books.bound || j.books.lowSpace)
	if j.full.Swap(full) != full {
		j.o.Logger.Warn("journal space", "full", full, "disk", j.books.lowSpace, "segments", len(j.books.live))
	}
}

// tidy closes the files of finished segments and removes free ones that are
// more than a quarter of the bound, of another size, or in the way of a full
// disk.
func (j *Journal) tidy() {
	b := &j.books
	b.Lock()
	files := b.closing
	b.closing = nil
	keep := j.o.SegmentsMax / 4
	if b.lowSpace {
		keep = 0
	}
	var drop []*segment
	n := 0
	for _, s := range b.free {
		if s.size != j.o.SegmentBytes || n >= keep {
			drop = append(drop, s)
			continue
		}
		b.free[n] = s
		n++
	}
	b.free = b.free[:n]
	b.Unlock()
	var err error
	for _, f := range files {
		err = errors.Join(err, f.Close())
	}
	for _, s := range drop {
		err = errors.Join(err, j.shelf.remove(s))
	}
	if err != nil {
		j.o.Logger.Warn("journal tidying", "error", err)
	}
}

// forwardLaggards has kept records written forward when they alone hold the
// oldest segment.
func (j *Journal) forwardLaggards() {
	b := &j.books
	b.Lock()
	due := b.releasable()
	b.Unlock()
	if due {
		j.ask(taskForward)
	}
}

// pressure tells the owner of the streams that pin the oldest segments while the
// journal is more than half of its bound. One call at a time.
func (j *Journal) pressure() {
	b := &j.books
	b.Lock()
	defer b.Unlock()
	if !b.press || b.pressed || b.liveBytes() <= j.o.SegmentBytes*int64(j.o.SegmentsMax)/2 {
		b.press = false
		return
	}
	pinned := b.pinning()
	if len(pinned) == 0 {
		return
	}
	b.press, b.pressed = false, true
	j.workers.Add(1)
	go func() {
		defer j.workers.Done()
		j.o.OnPressure(pinned)
		b.Lock()
		b.pressed = false
		b.Unlock()
	}()
}

// tick looks at the disk's free bytes, and once more at everything else.
func (j *Journal) tick() {
	low, known := false, false
	if j.o.ReserveBytes > 0 {
		if u, err := j.shelf.fs.GetDiskUsage(j.shelf.dir); err == nil {
			known = true
			low = u.AvailBytes < uint64(j.o.ReserveBytes)
			// An eighth more must be free before it counts as recovered.
			if j.full.Load() {
				low = u.AvailBytes < uint64(j.o.ReserveBytes+j.o.ReserveBytes/8)
			}
		}
	}
	b := &j.books
	b.Lock()
	defer b.Unlock()
	if j.stopped {
		return
	}
	if known {
		b.lowSpace = low
		j.setFull()
	}
	b.press = true
	j.wake()
	j.stopTick = j.clock.AfterFunc(j.o.SpaceInterval, j.tick)
}
