package test

import (
	"bytes"
	"io"
	"strconv"
	"sync/atomic"
	"testing"
	"time"
)

const (
	slowSize  = 10_000
	slowCount = 20_000 // 200 MB for a client that does not read

	// slowMemoryKiB is what Halley may grow by while they are sent: the mailbox
	// (8 MiB), blocks on their way, pending bytes, and garbage not yet collected.
	// 2 to 20 MiB were measured.
	slowMemoryKiB = 48 << 10
)

// smallBuffer is the receive buffer of a client that is to be slow. It is some segments
// of the loopback (64 KiB): with less, TCP itself sends one window in 200 ms.
const smallBuffer = 256 << 10

// slowPair is a client that stops reading and one that does not. The first has a small
// receive buffer, so that the kernel takes little of what it is sent.
func slowPair(t *testing.T, h *halley) (slow, healthy *stream) {
	t.Helper()
	c := dial(t, h.addr)
	c.SetReadBuffer(smallBuffer)
	slow = h.openOn(c, "1")
	slow.want("Welcome, Url: '/test/1' Id: 1\n")
	return slow, h.open("2")
}

// sendSlow sends the 200 MB and, for each of their messages, a small one to the healthy
// client, which must get them all in order. It gives the greatest growth of memory.
func sendSlow(t *testing.T, h *halley, e *erlNode, healthy *stream) (grownKiB int) {
	t.Helper()
	e.want("ok", "load:slow(%s, 9, 9, 2000, %d)", h.to, slowSize) // to nobody: buffers get their size
	received := h.atRest(4000).of(t, "messages_received_total")
	before := residentKiB(t, h.cmd.Process.Pid)
	peak := before
	done := make(chan error, 1)
	go func() {
		var progress atomic.Int64
		healthy.conn.SetReadDeadline(time.Now().Add(2 * time.Minute))
		done <- healthy.counted(2, 1, slowCount, &progress)
	}()
	e.want("true", "is_pid(spawn(fun() -> load:slow(%s, 1, 2, %d, %d) end))", h.to, slowCount, slowSize)
	for sampling := true; sampling; {
		select {
		case err := <-done:
			if err != nil {
				t.Fatal(err)
			}
			sampling = false
		case <-time.After(5 * time.Millisecond):
		}
		peak = max(peak, residentKiB(t, h.cmd.Process.Pid))
	}
	eventually(t, "all has come", func() bool {
		m := h.metrics()
		return m.of(t, "messages_received_total") == received+2*slowCount && m.of(t, "mailbox_entries") == 0
	})
	t.Logf("resident memory %d KiB before, %d KiB at most: grown by %d KiB", before, peak, peak-before)
	return peak - before
}

func TestSlow_Close(t *testing.T) {
	h := startHalley(t, halleyOptions{})
	e := sharedErl(t)
	slow, healthy := slowPair(t, h)
	if grown := sendSlow(t, h, e, healthy); grown > slowMemoryKiB {
		t.Errorf("memory grew by %d KiB, more than %d", grown, slowMemoryKiB)
	}
	m := h.atRest(-1)
	if got := m.of(t, `connections_closed_total{reason="slow"}`); got != 1 {
		t.Errorf("%d closed for being slow", got)
	}
	if m.of(t, `messages_discarded_total{reason="slow"}`) == 0 || m.of(t, "pending_bytes") != 0 || m.of(t, "connections") != 1 {
		t.Errorf("discarded as slow %d, pending %d, connections %d", m.of(t, `messages_discarded_total{reason="slow"}`),
			m.of(t, "pending_bytes"), m.of(t, "connections"))
	}
	// It does not mistake its end for a clean one, and can come back.
	slow.conn.SetReadDeadline(time.Now().Add(patience))
	for {
		if _, err := slow.next(); err == io.EOF {
			t.Fatal("the slow client got a last chunk")
		} else if err != nil {
			break
		}
	}
	back := h.open("1")
	e.eval("%s ! {1, <<\"again\">>}", h.to)
	back.want("again")
}

func TestSlow_Drop(t *testing.T) {
	h := startHalley(t, halleyOptions{args: []string{"--slow", "drop"}})
	e := sharedErl(t)
	slow, healthy := slowPair(t, h)
	if grown := sendSlow(t, h, e, healthy); grown > slowMemoryKiB {
		t.Errorf("memory grew by %d KiB, more than %d", grown, slowMemoryKiB)
	}
	m := h.metrics()
	if m.of(t, "connections") != 2 || m.of(t, `messages_discarded_total{reason="slow"}`) == 0 {
		t.Errorf("connections %d, discarded %d", m.of(t, "connections"), m.of(t, `messages_discarded_total{reason="slow"}`))
	}
	if pending := m.of(t, "pending_bytes"); pending > 64<<10+slowSize+100 {
		t.Errorf("%d bytes are pending, more than --max-pending and a message", pending)
	}
	// It reads again: whole messages in order, then what comes new.
	pad := bytes.Repeat([]byte("x"), slowSize)
	last, messages := 0, 0
	slow.conn.SetReadDeadline(time.Now().Add(patience))
	read := func() string {
		got, err := slow.next()
		if err != nil {
			t.Fatalf("after message %d: %v", last, err)
		}
		number, rest, found := bytes.Cut(got, []byte(":"))
		if !found {
			return string(got)
		}
		n, err := strconv.Atoi(string(number))
		if err != nil || n <= last || !bytes.Equal(rest, pad) {
			t.Fatalf("after message %d: %.40q", last, got)
		}
		last = n
		messages++
		return ""
	}
	dropped := m.of(t, `messages_discarded_total{reason="slow"}`)
	for messages < slowCount-dropped {
		read()
	}
	eventually(t, "nothing is pending", func() bool { return h.metric("pending_bytes") == 0 })
	e.eval("%s ! {1, <<\"again\">>}", h.to)
	if got := read(); got != "again" {
		t.Errorf("got %.40q", got)
	}
	if m := h.atRest(-1); m.of(t, `messages_discarded_total{reason="slow"}`) != dropped {
		t.Errorf("%d were dropped, then %d", dropped, m.of(t, `messages_discarded_total{reason="slow"}`))
	}
	t.Logf("%d messages written, %d dropped", messages, dropped)
}

// Many clients that do not read share --max-pending-total; those with the most are
// closed, the healthy one stays.
func TestSlow_Total(t *testing.T) {
	const clients = 20
	h := startHalley(t, halleyOptions{args: []string{"--max-pending", "16MiB", "--max-pending-total", "8MiB"}})
	e := sharedErl(t)
	for i := range clients {
		c := dial(t, h.addr)
		c.SetReadBuffer(smallBuffer)
		h.openOn(c, strconv.Itoa(i+100))
	}
	healthy := h.open("1")
	e.want("ok", "lists:foreach(fun(N) -> %s ! [{U, binary:copy(<<\"x\">>, 100000)} || U <- lists:seq(100, 119)] ++ "+
		"[{1, [<<\"1:\">>, integer_to_binary(N), $;]}] end, lists:seq(1, 60))", h.to)
	var progress atomic.Int64
	healthy.conn.SetReadDeadline(time.Now().Add(patience))
	if err := healthy.counted(1, 1, 60, &progress); err != nil {
		t.Fatal(err)
	}
	m := h.metrics()
	if closed := m.of(t, `connections_closed_total{reason="total"}`); closed == 0 || closed == clients {
		t.Errorf("%d of %d closed", closed, clients)
	}
	if pending := m.of(t, "pending_bytes"); pending > 8<<20 {
		t.Errorf("%d bytes are pending", pending)
	}
	if h.log.count("pending bytes reached --max-pending-total") == 0 {
		t.Error("no log line")
	}
}
