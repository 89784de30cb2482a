package main

import (
	"github.com/prometheus/client_golang/prometheus"

	"halley/cnode"
)

// nodeMetrics makes a node's counters a prometheus.Collector.
type nodeMetrics struct{ node *cnode.Node }

var (
	descPeers       = prometheus.NewDesc("halley_peers", "Erlang nodes that are connected.", nil, nil)
	descPackets     = prometheus.NewDesc("halley_dist_packets_total", "Distribution packets.", []string{"direction"}, nil)
	descDistBytes   = prometheus.NewDesc("halley_dist_bytes_total", "Distribution bytes.", []string{"direction"}, nil)
	descHandshakes  = prometheus.NewDesc("halley_dist_handshakes_total", "Handshakes with Erlang nodes.", []string{"result"}, nil)
	descReconnects  = prometheus.NewDesc("halley_dist_reconnects_total", "Connections to a peer that had been connected before.", nil, nil)
	descPeersLost   = prometheus.NewDesc("halley_dist_peers_lost_total", "Connections to peers that ended unasked.", nil, nil)
	descBadPackets  = prometheus.NewDesc("halley_dist_bad_packets_total", "Packets that ended their connection.", nil, nil)
	descHeld        = prometheus.NewDesc("halley_links_and_monitors", "Links and monitors that Erlang nodes have of connections.", nil, nil)
	descLogins      = prometheus.NewDesc("halley_logins_total", "Calls of --login that have ended.", []string{"result"}, nil)
	descLogouts     = prometheus.NewDesc("halley_logouts_total", "Calls of --logout that have ended.", []string{"result"}, nil)
	descCallsWait   = prometheus.NewDesc("halley_calls_waiting", "Calls of --login and --logout that wait for their turn.", []string{"call"}, nil)
	descCallsFlight = prometheus.NewDesc("halley_calls_in_flight", "Calls of --login and --logout that have no answer yet.", nil, nil)
	descTold        = prometheus.NewDesc("halley_presence_told_total", "Connections that --presence processes were told of.", nil, nil)
	descEpochs      = prometheus.NewDesc("halley_presence_epochs_total", "Times that a --presence process began to be told of all.", nil, nil)
	descCuts        = prometheus.NewDesc("halley_presence_cuts_total", "Epochs that ended because the Erlang node did not read.", nil, nil)
	descBadMessages = prometheus.NewDesc("halley_dist_bad_messages_total", "Messages that could not be used.", []string{"kind"}, nil)
)

func (m nodeMetrics) Describe(ch chan<- *prometheus.Desc) { prometheus.DescribeByCollect(m, ch) }

func (m nodeMetrics) Collect(ch chan<- prometheus.Metric) {
	st := m.node.Stats()
	count := func(d *prometheus.Desc, v int64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(v), labels...)
	}
	gauge := func(d *prometheus.Desc, v int, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, float64(v), labels...)
	}
	gauge(descPeers, st.Peers)
	count(descPackets, st.PacketsIn, "in")
	count(descPackets, st.PacketsOut, "out")
	count(descDistBytes, st.BytesIn, "in")
	count(descDistBytes, st.BytesOut, "out")
	count(descHandshakes, st.HandshakesOK, "ok")
	count(descHandshakes, st.HandshakesFailed, "failed")
	count(descHandshakes, st.HandshakesShed, "shed")
	count(descReconnects, st.Reconnects)
	count(descPeersLost, st.PeersLost)
	count(descBadPackets, st.BadPackets)
	gauge(descHeld, st.Held)
	for _, of := range []struct {
		desc  *prometheus.Desc
		calls cnode.Calls
	}{{descLogins, st.Told.Logins}, {descLogouts, st.Told.Logouts}} {
		count(of.desc, of.calls.OK, "ok")
		count(of.desc, of.calls.Failed, "failed")
		count(of.desc, of.calls.Timeout, "timeout")
	}
	gauge(descCallsWait, st.Told.LoginsWaiting, "login")
	gauge(descCallsWait, st.Told.LogoutsWaiting, "logout")
	gauge(descCallsFlight, st.Told.InFlight)
	count(descTold, st.Told.PresenceTold)
	count(descEpochs, st.Told.PresenceEpochs)
	count(descCuts, st.Told.PresenceCuts)
	for kind, n := range st.BadMessages {
		count(descBadMessages, n, kind)
	}
}
