package lan

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

const a, b = "10.0.0.1", "10.0.0.2"

func network(seed uint64) *Net {
	return New(Options{Seed: seed, Delay: Delay{Min: time.Millisecond, Max: 20 * time.Millisecond, Spike: 100, SpikeMax: time.Second}})
}

// connected gives both ends of a connection from a to b.
func connected(t *testing.T, n *Net) (client, server net.Conn) {
	t.Helper()
	l, err := n.Host(b).Listen(b + ":1")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	client, err = n.Host(a).Dial(context.Background(), b+":1")
	if err != nil {
		t.Fatal(err)
	}
	if server, err = l.Accept(); err != nil {
		t.Fatal(err)
	}
	return client, server
}

func write(t *testing.T, c net.Conn, s string) {
	t.Helper()
	if _, err := io.WriteString(c, s); err != nil {
		t.Fatal(err)
	}
}

func TestWhatIsReadIsWhatWasWritten(t *testing.T) {
	for seed := range uint64(20) {
		synctest.Test(t, func(t *testing.T) {
			client, server := connected(t, network(seed))
			var want strings.Builder
			for i := range 300 {
				fmt.Fprintf(&want, "%d;", i*i)
			}
			big := strings.Repeat("x", 3*windowBytes) // more than is under way at once
			go func() {
				for part := range strings.SplitAfterSeq(want.String(), ";") {
					io.WriteString(client, part)
				}
				io.WriteString(client, big)
				client.Close()
			}()
			got, err := io.ReadAll(server)
			if err != nil || string(got) != want.String()+big {
				t.Errorf("seed %d: %d bytes of %d, %v", seed, len(got), want.Len()+len(big), err)
			}
			server.Close()
		})
	}
}

func TestACutLinkHoldsAndPassesWhenHealed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := network(1)
		client, server := connected(t, n)
		n.Cut(a, b)
		write(t, client, "hello")
		server.SetReadDeadline(time.Now().Add(time.Minute))
		buf := make([]byte, 10)
		if k, err := server.Read(buf); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatalf("through a cut link: %q, %v", buf[:k], err)
		}
		write(t, server, "other way") // one way is cut, not both
		client.SetReadDeadline(time.Now().Add(time.Minute))
		if k, err := client.Read(buf); err != nil || string(buf[:k]) != "other way" {
			t.Errorf("the other way: %q, %v", buf[:k], err)
		}
		n.Heal(a, b)
		server.SetReadDeadline(time.Now().Add(time.Minute))
		if k, err := server.Read(buf); err != nil || string(buf[:k]) != "hello" {
			t.Errorf("healed: %q, %v", buf[:k], err)
		}
		client.Close()
		server.Close()
	})
}

func TestADialWaitsForTheLink(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := network(1)
		n.Cut(b, a)
		l, err := n.Host(b).Listen(b + ":1")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		if _, err := n.Host(a).Dial(ctx, b+":1"); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("dialled over a cut link: %v", err)
		}
		n.HealAll()
		if _, err := n.Host(a).Dial(context.Background(), b+":2"); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("dialled a closed port: %v", err)
		}
		if _, err := n.Host(b).Listen(":1"); !errors.Is(err, syscall.EADDRINUSE) {
			t.Errorf("one port, two listeners: %v", err)
		}
	})
}

func TestAMachineWithoutPowerSaysNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := network(1)
		client, server := connected(t, n)
		n.Host(b).PowerOff()
		server.Close() // as its process ends: nothing of that is sent
		write(t, client, "anybody?")
		client.SetReadDeadline(time.Now().Add(time.Hour))
		if _, err := client.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatalf("a machine without power: %v", err)
		}
		n.Host(b).PowerOn()
		client.SetReadDeadline(time.Now().Add(time.Hour))
		if _, err := client.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("its next life: %v", err)
		}
		client.Close()
	})
}

func TestResetEndsBothEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := network(1)
		client, server := connected(t, n)
		write(t, client, "lost")
		if k := n.Reset(a, b, nil); k != 1 {
			t.Errorf("%d connections were reset", k)
		}
		for _, c := range []net.Conn{client, server} {
			if _, err := c.Read(make([]byte, 9)); !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("read after a reset: %v", err)
			}
			if _, err := c.Write([]byte("x")); !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("write after a reset: %v", err)
			}
		}
	})
}

func TestAPausedHostGoesOnWhereItWas(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := network(1)
		client, server := connected(t, n)
		n.Host(b).Pause()
		began := time.Now()
		write(t, client, "x")
		time.AfterFunc(time.Minute, n.Host(b).Resume)
		if _, err := server.Read(make([]byte, 1)); err != nil || time.Since(began) < time.Minute {
			t.Errorf("read %v after %v", err, time.Since(began))
		}
		client.Close()
		server.Close()
	})
}

// TestOneSeedOneDelay draws delays by seed, link and count, whatever else is sent.
func TestOneSeedOneDelay(t *testing.T) {
	draw := func(seed uint64, other bool) (out []time.Duration) {
		n := network(seed)
		for range 50 {
			if other {
				n.delay(n.link(b, a))
			}
			out = append(out, n.delay(n.link(a, b)))
		}
		return out
	}
	if fmt.Sprint(draw(1, false)) != fmt.Sprint(draw(1, true)) {
		t.Error("what another link carries changes the delays of this one")
	}
	if fmt.Sprint(draw(1, false)) == fmt.Sprint(draw(2, false)) {
		t.Error("two seeds have the same delays")
	}
}
