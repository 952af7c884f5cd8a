package cluster

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

const zookeeperJar = "/usr/share/java/zookeeper.jar"

// A ZooKeeper is a server of Debian's package zookeeper, on data of its own.
type ZooKeeper struct {
	Addr   string
	config string
	out    bytes.Buffer
	cmd    *exec.Cmd
	end    chan struct{} // closed when cmd has ended
}

// NewZooKeeper makes a place for a server in a directory.
func NewZooKeeper(dir string) (*ZooKeeper, error) {
	ports, err := FreePorts(1)
	if err != nil {
		return nil, err
	}
	z := &ZooKeeper{Addr: fmt.Sprint("127.0.0.1:", ports[0]), config: filepath.Join(dir, "zoo.cfg")}
	return z, os.WriteFile(z.config, fmt.Appendf(nil, "tickTime=200\ndataDir=%s\nclientPort=%d\nclientPortAddress=127.0.0.1\n"+
		"admin.enableServer=false\nmaxClientCnxns=0\n4lw.commands.whitelist=*\nforceSync=no\n", dir, ports[0]), 0o600)
}

// Start begins a life of the server, and waits until it serves.
func (z *ZooKeeper) Start() error {
	java, err := exec.LookPath("java")
	if err == nil {
		_, err = os.Stat(zookeeperJar)
	}
	if err != nil {
		return fmt.Errorf("%w: this runs ZooKeeper: apt-get install --no-install-recommends zookeeper default-jre-headless", err)
	}
	z.cmd = exec.Command(java, "-Xmx128m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-cp", zookeeperJar,
		"org.apache.zookeeper.server.ZooKeeperServerMain", z.config)
	z.cmd.Stdout, z.cmd.Stderr = &z.out, &z.out
	z.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} // [C1]
	if err := z.cmd.Start(); err != nil {
		return err
	}
	end := make(chan struct{})
	z.end = end
	go func() { _ = z.cmd.Wait(); close(end) }()
	limit := time.After(60 * time.Second)
	for z.Znodes() == 0 {
		select {
		case <-end:
			return fmt.Errorf("ZooKeeper ended: %s", z.out.String())
		case <-limit:
			z.Kill()
			return errors.New("ZooKeeper does not serve at " + z.Addr)
		case <-time.After(20 * time.Millisecond):
		}
	}
	return nil
}

// Ask asks the server one of its short questions.
func (z *ZooKeeper) Ask(word string) string {
	c, err := net.DialTimeout("tcp", z.Addr, time.Second)
	if err != nil {
		return ""
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(2 * time.Second))
	_, _ = io.Copy(c, strings.NewReader(word))
	data, _ := io.ReadAll(c)
	return string(data)
}

// Znodes is how many znodes the server holds, its own few included; 0 if it does not
// serve.
func (z *ZooKeeper) Znodes() (n int) {
	_, rest, _ := strings.Cut(z.Ask("mntr"), "zk_znode_count\t")
	_, _ = fmt.Sscan(rest, &n)
	return n
}

// Kill ends the server as kill -9 does, and waits until it is gone.
func (z *ZooKeeper) Kill() {
	if z.end != nil {
		_ = z.cmd.Process.Kill()
		<-z.end
	}
}
