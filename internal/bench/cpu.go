package bench

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
)

// ticksPerSecond is the unit of the kernel's times of a process: USER_HZ, which
// is 100 on every Linux that Go runs on.
const ticksPerSecond = 100

// watchCPU notes at from, or when ctx ends before, how much CPU the processes
// have used; the returned function tells how much they have used since.
func watchCPU(ctx context.Context, pids []int, from time.Time) func() (time.Duration, error) {
	type reading struct {
		used time.Duration
		err  error
	}
	first := make(chan reading, 1)
	go func() {
		waitUntil(ctx, from)
		used, err := cpuOf(pids)
		first <- reading{used, err}
	}()
	return func() (time.Duration, error) {
		begin := <-first
		if begin.err != nil {
			return 0, begin.err
		}
		used, err := cpuOf(pids)
		return used - begin.used, err
	}
}

// cpuOf is the user and system time that processes of this machine have used.
func cpuOf(pids []int) (time.Duration, error) {
	var ticks int64
	for _, pid := range pids {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil {
			return 0, fmt.Errorf("the CPU of process %d cannot be measured: %w", pid, err)
		}
		// The command's name, in brackets, may hold anything; what follows are
		// numbers, of which the 12th and 13th are user and system time.
		fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
		if len(fields) < 13 {
			return 0, fmt.Errorf("the CPU of process %d cannot be read from %q", pid, stat)
		}
		for _, f := range fields[11:13] {
			n, err := strconv.ParseInt(f, 10, 64)
			if err != nil {
				return 0, err
			}
			ticks += n
		}
	}
	return time.Duration(ticks) * time.Second / ticksPerSecond, nil
}
