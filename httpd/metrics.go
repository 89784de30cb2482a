package httpd

import (
	"strconv"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics makes a Server a prometheus.Collector: the counters stay where they
// are and are read when somebody asks.
type metrics struct{ server *Server }

// Metrics returns the collector of a Server.
func (s *Server) Metrics() prometheus.Collector { return metrics{s} }

func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("halley_"+name, help, labels, nil)
}

var (
	descConnections    = desc("connections", "Streams that are open.")
	descOpen           = desc("open_sockets", "Client sockets that are open, those without a stream included.")
	descMaxConnections = desc("max_connections", "Connections that slots and file descriptors allow.")
	descUsers          = desc("users", "Uids with at least one stream.")
	descPendingBytes   = desc("pending_bytes", "Bytes that wait for clients that do not read.")
	descMailboxBytes   = desc("mailbox_bytes", "Bytes that wait for the loops.")
	descMailboxEntries = desc("mailbox_entries", "Messages and commands that wait for the loops.")
	descMailboxWait    = desc("mailbox_wait_seconds_total", "Time that the readers of Erlang nodes waited for room in a mailbox.")
	descReceived       = desc("messages_received_total", "Messages that came from Erlang.")
	descCopied         = desc("messages_copied_total", "Deliveries beyond the first of a message that went to several connections.")
	descWritten        = desc("messages_written_total", "Deliveries whose last byte the socket has taken.")
	descDiscarded      = desc("messages_discarded_total", "Messages and deliveries that were not written.", "reason")
	descAcceptErrors   = desc("accept_errors_total", "Times that clients could not be accepted, for want of descriptors or memory.")
	descOpened         = desc("connections_opened_total", "Client sockets accepted.")
	descClosed         = desc("connections_closed_total", "Client sockets closed.", "reason")
	descRequests       = desc("requests_total", "Requests answered.", "code")
	descInbox          = desc("inbox_messages_total", "Messages that clients sent with POST.", "result")
	descCommandsLost   = desc("commands_discarded_total", "Commands from Erlang to end or watch connections that found no room in a mailbox.")
	descSlotsRetired   = desc("slots_retired", "Slots that have no number left for another connection.")
	descBytesWritten   = desc("bytes_written_total", "Bytes written to clients.")
	descWrites         = desc("writes_total", "Write calls to clients' sockets.")
)

func (m metrics) Describe(ch chan<- *prometheus.Desc) { prometheus.DescribeByCollect(m, ch) }

func (m metrics) Collect(ch chan<- prometheus.Metric) {
	st := m.server.Stats()
	send := func(d *prometheus.Desc, t prometheus.ValueType, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, t, v, labels...)
	}
	gauge := func(d *prometheus.Desc, v int64) { send(d, prometheus.GaugeValue, float64(v)) }
	count := func(d *prometheus.Desc, v uint64, labels ...string) {
		send(d, prometheus.CounterValue, float64(v), labels...)
	}
	gauge(descConnections, st.Connections)
	gauge(descOpen, st.Open)
	gauge(descMaxConnections, int64(st.MaxConnections))
	gauge(descUsers, st.Users)
	gauge(descPendingBytes, st.PendingBytes)
	gauge(descMailboxBytes, st.MailboxBytes)
	gauge(descMailboxEntries, st.MailboxEntries)
	send(descMailboxWait, prometheus.CounterValue, st.MailboxWaitSeconds)
	count(descReceived, st.Received)
	count(descCopied, st.Copied)
	count(descWritten, st.Written)
	count(descOpened, st.Opened)
	count(descAcceptErrors, st.AcceptErrors)
	count(descCommandsLost, st.CommandsDiscarded)
	gauge(descSlotsRetired, st.SlotsRetired)
	count(descBytesWritten, st.BytesWritten)
	count(descWrites, st.Writes)
	for why, n := range st.Discarded {
		count(descDiscarded, n, why)
	}
	for result, n := range st.Inbox {
		count(descInbox, n, result)
	}
	for why, n := range st.Closed {
		count(descClosed, n, why)
	}
	for code, n := range st.Requests {
		count(descRequests, n, strconv.Itoa(code))
	}
}
