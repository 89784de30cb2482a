package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"
)

// running is a server that has been started.
type running struct {
	version string // of what it is built on; "" if it has none to tell
	pids    []int  // whose memory and processor time are the server's
	url     string
	source  source
	// concurrent: the source can send two loads at once.
	concurrent bool
	stop       func()
}

// server is a column of the table.
type server struct {
	name  string
	note  string
	start func(ctx context.Context, r *rig, addr string) (*running, error)
}

// servers are all that can be compared, Halley first: the ratios are to it.
func servers() []server {
	list := []server{
		halley("halley", "Halley on epoll, a loop for each core", "--engine", "epoll"),
		halley("halley-evio", "Halley on evio, one loop", "--engine", "evio"),
	}
	return append(list, peerServers()...)
}

func halley(name, note string, flags ...string) server {
	return server{name, note, func(ctx context.Context, r *rig, addr string) (*running, error) {
		node := "halley_bench@" + nodeHost
		cmd := exec.Command(r.file("halley"), append([]string{"serve", "--name", node, "--cookie", r.cookie,
			"--epmd", "127.0.0.1:" + strconv.Itoa(r.epmd), "--listen", addr, "--admin", "", "--log-level", "warn", "--drain", "1s"}, flags...)...)
		cmd.Env = cleanEnv()
		cmd.SysProcAttr = endWithUs()
		cmd.Stderr = r.log
		if err := cmd.Start(); err != nil {
			return nil, fmt.Errorf("start halley: %w", err)
		}
		stop := func() { stopProcess(cmd) }
		if err := dialFor(addr, 10*time.Second); err != nil {
			stop()
			return nil, fmt.Errorf("halley does not listen: %w", err)
		}
		if err := r.connect(ctx, node); err != nil {
			stop()
			return nil, err
		}
		return &running{
			pids: []int{cmd.Process.Pid}, url: "http://" + addr + "/test/{uid}", concurrent: true, stop: stop,
			source: &erlSource{rig: r, dest: fmt.Sprintf("{httpd, '%s'}", node), all: true},
		}, nil
	}}
}

// cleanEnv is our environment without what would change the servers.
func cleanEnv() []string {
	var env []string
	for _, v := range os.Environ() {
		if !strings.HasPrefix(v, "HALLEY_") && !strings.HasPrefix(v, "ERL_") {
			env = append(env, v)
		}
	}
	return env
}

// connect connects the publishing node to a server's.
func (r *rig) connect(ctx context.Context, node string) error {
	var err error
	for range 50 {
		if _, err = r.erlang(ctx, "{connect, '%s'}", node); err == nil {
			return nil
		}
		time.Sleep(100 * time.Millisecond)
	}
	return fmt.Errorf("connect Erlang to %s: %w", node, err)
}
