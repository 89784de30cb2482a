package cnode

import (
	"bytes"
	"fmt"
	"syscall"
	"testing"
	"time"
)

func withInbox(o *Options) { o.Inbox = "inbox" }

func startInbox(t *testing.T, epmd int, change func(o *Options)) *testNode {
	return startNode(t, epmd, func(o *Options, _ *testNode) {
		withInbox(o)
		if change != nil {
			change(o)
		}
	})
}

func TestInbox_Messages(t *testing.T) {
	forEachOTP(t, func(t *testing.T, o otp) {
		epmd := startEPMD(t)
		e := startErl(t, o, epmd, uniqueName("e")+"@localhost")
		loadTold(e)
		n := startInbox(t, epmd, nil)
		if n.Inbox(1, nil, 0, nil) {
			t.Error("accepted without a peer")
		}
		e.want("pong", "net_adm:ping('%s')", n.o.Name)
		for range 100 { // the name is not there: not one is taken
			if n.Inbox(1, nil, 0, []byte("lost")) {
				t.Fatal("accepted without the name")
			}
			time.Sleep(time.Millisecond)
		}
		e.want("ok", "told:keep(inbox)")
		eventually(t, "the name is found", func() bool { return n.teller.inbox.Load() != nil })
		conn := uint64(7)<<32 | 5
		body := bytes.Repeat([]byte("x"), 65536)
		for i, ok := range []bool{
			n.Inbox(123, nil, conn, []byte("hello")),
			n.Inbox(0, []byte("joe"), 0, nil),
			n.Inbox(1<<62, nil, conn, body),
		} {
			if !ok {
				t.Errorf("message %d refused", i)
			}
		}
		body[0] = 'y' // it is a copy that waits
		e.told("3", "length(told:kept(inbox))")
		e.want("true", "[{message, 123, %[1]s, <<\"hello\">>}, {message, <<\"joe\">>, undefined, <<>>}, "+
			"{message, 1 bsl 62, %[1]s, binary:copy(<<\"x\">>, 65536)}] =:= told:kept(inbox)", erlPid(n, conn))
		if s := n.Stats().Told; s.InboxAccepted != 3 || s.InboxRefused != 101 {
			t.Errorf("%+v", s)
		}
		e.kill()
		eventually(t, "gone", func() bool { return !n.Inbox(1, nil, 0, []byte("x")) })
	})
}

// A peer that has not yet said whether it has the name does not get what would be lost.
func TestInbox_NotBeforeTheNameIsKnown(t *testing.T) {
	n := startInbox(t, startEPMD(t), nil)
	raw := dialRaw(t, n)
	raw.connect("raw@localhost")
	eventually(t, "it is asked", func() bool { return n.Stats().PacketsOut >= 2 })
	for range 30 { // longer than the teller sleeps
		if n.Inbox(1, nil, 0, []byte("lost")) {
			t.Fatal("accepted")
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// The first connected peer that has the name; another when it goes; LoginNode before all.
func TestInbox_Failover(t *testing.T) {
	epmd := startEPMD(t)
	var es [3]*erlNode
	for i := range es {
		es[i] = startErl(t, otp{}, epmd, uniqueName(fmt.Sprintf("e%d", i))+"@localhost")
		loadTold(es[i])
	}
	n := startInbox(t, epmd, func(o *Options) { o.LoginNode = es[2].name })
	at := func(e *erlNode) {
		t.Helper()
		eventually(t, "the inbox is at "+e.name, func() bool {
			c := n.teller.inbox.Load()
			return c != nil && c.peer == e.name
		})
		if !n.Inbox(1, nil, 0, []byte(e.name)) {
			t.Error("refused")
		}
		e.told("true", "lists:member({message, 1, undefined, <<%s>>}, told:kept(inbox))", erlString(e.name))
	}
	es[0].want("pong", "net_adm:ping('%s')", n.o.Name) // has not the name
	es[1].want("pong", "net_adm:ping('%s')", n.o.Name)
	es[1].want("ok", "told:keep(inbox)")
	at(es[1])
	es[0].want("ok", "told:keep(inbox)")
	at(es[0])
	es[2].want("pong", "net_adm:ping('%s')", n.o.Name)
	es[2].want("ok", "told:keep(inbox)")
	at(es[2])
	es[2].kill()
	at(es[0])
	es[0].want("true", "exit(whereis(inbox), kill)")
	at(es[1])
}

// A peer that does not read has a bounded number of messages waiting, and is not
// disconnected for them.
func TestInbox_Bound(t *testing.T) {
	epmd := startEPMD(t)
	e := startErl(t, otp{}, epmd, uniqueName("e")+"@localhost")
	loadTold(e)
	e.want("ok", "told:keep(inbox)")
	n := startInbox(t, epmd, nil)
	e.want("pong", "net_adm:ping('%s')", n.o.Name)
	eventually(t, "the name is found", func() bool { return n.teller.inbox.Load() != nil })
	e.cmd.Process.Signal(syscall.SIGSTOP)
	defer e.cmd.Process.Signal(syscall.SIGCONT)
	body := make([]byte, 64<<10)
	accepted := 0
	eventually(t, "refused", func() bool {
		for n.Inbox(1, nil, 0, body) {
			accepted++
		}
		time.Sleep(50 * time.Millisecond) // the writer may have taken what waited
		return !n.Inbox(1, nil, 0, body)
	})
	if waiting := n.registry.conn(e.name).w.waiting(); waiting > inboxBytes {
		t.Errorf("%d bytes wait", waiting)
	}
	e.cmd.Process.Signal(syscall.SIGCONT)
	e.told(fmt.Sprint(n.Stats().Told.InboxAccepted), "length(told:kept(inbox))")
	if !n.Inbox(1, nil, 0, body) {
		t.Error("refused after it reads again")
	}
	if lost := n.Stats().PeersLost; lost != 0 || accepted == 0 {
		t.Errorf("%d peers lost, %d accepted", lost, accepted)
	}
}
