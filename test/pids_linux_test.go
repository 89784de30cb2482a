package test

import (
	"fmt"
	"testing"
	"time"
)

// 15,000 connections that one process is linked to and monitors end at once: it gets a
// signal for each link and each monitor, and nothing else.
func TestPids_EndAtOnce(t *testing.T) {
	const n = 15_000
	h := startHalley(t, halleyOptions{})
	e := startErl(t, erlOptions{})
	e.want("pong", "net_adm:ping('%s')", h.name)
	clients, out := background(t, floodCommand(t, h, "--connections", fmt.Sprint(n), "--uids", fmt.Sprintf("1-%d", n), "--processes", "1", "--hold", "0"))
	within(t, 2*time.Minute, "all are open", func() bool {
		if clients.ProcessState != nil {
			t.Fatalf("flood has ended: %s", out)
		}
		return h.metric("connections") == n
	})
	e.want(fmt.Sprint(n), "length(Pids = load:pids(%s, %d))", h.to, n)
	before := residentKiB(t, h.cmd.Process.Pid)
	e.eval("H = load:hold(Pids)")
	eventually(t, "all are held", func() bool { return h.metric("links_and_monitors") == 2*n })
	grown := residentKiB(t, h.cmd.Process.Pid) - before
	t.Logf("%d links and monitors take %d KiB", 2*n, grown)
	began := time.Now()
	clients.Process.Kill()
	want := fmt.Sprintf("%d", n)
	var got string
	within(t, time.Minute, "all signals have come", func() bool {
		got = e.eval("[lists:sum([N || {{K, R}, N} <- load:held(H), K =:= Kind, R =:= normal orelse R =:= {tcp, reset}]) || Kind <- [exit, down]]")
		return got == "["+want+","+want+"]"
	})
	t.Logf("%d exits and downs in %v", 2*n, time.Since(began))
	e.want("0", "lists:sum([N || {{K, R}, N} <- load:held(H), K =:= odd orelse (R =/= normal andalso R =/= {tcp, reset})])")
	if left := h.metric("links_and_monitors"); left != 0 {
		t.Errorf("%d links and monitors are left", left)
	}
}
