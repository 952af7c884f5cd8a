package lan

import "syscall"

// PowerOff ends a machine without a word: its ports are gone, and its connections
// are open at the other end until that sends something to its next life (L3).
func (h *Host) PowerOff() {
	n := h.net
	n.mu.Lock()
	defer n.mu.Unlock()
	n.o.Trace("power off %s", h.name)
	h.off, h.paused = true, false
	for _, c := range append([]*Conn(nil), n.conns...) {
		if c.out.link.from == h.name {
			n.breakConn(c, syscall.ECONNRESET)
		}
	}
}

// PowerOn brings the machine back, with no port open and no connection known.
func (h *Host) PowerOn() {
	n := h.net
	n.mu.Lock()
	defer n.mu.Unlock()
	n.o.Trace("power on %s", h.name)
	h.off = false
	n.resume()
}

// Pause keeps everything that this host sends or is sent under way, until Resume:
// its process stands still, its kernel holds the connections.
func (h *Host) Pause() {
	n := h.net
	n.mu.Lock()
	defer n.mu.Unlock()
	n.o.Trace("pause %s", h.name)
	h.paused = true
}

// Resume lets it go on.
func (h *Host) Resume() {
	n := h.net
	n.mu.Lock()
	defer n.mu.Unlock()
	n.o.Trace("resume %s", h.name)
	h.paused = false
	n.resume()
}
