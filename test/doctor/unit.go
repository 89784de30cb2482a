package doctor

import (
	"fmt"
	"io"
	"time"

	"halley/httpd"
)

// unit is a systemd unit. Verbs: connections, drain, seconds to stop,
// descriptors, memory, flags of serve.
const unit = `# A unit for %[1]d connections, by: halley doctor --connections %[1]d --systemd
# Change HOST, the Erlang node's name and the addresses, then, as root:
#   useradd --system --no-create-home --shell /usr/sbin/nologin halley
#   install -d -m 755 /etc/halley
#   install -o halley -g halley -m 400 COOKIE_OF_THE_CLUSTER /etc/halley/cookie
# (not LoadCredential=: since systemd 254 its files are mode 0440, which Halley refuses)
#   install -m 755 halley /usr/local/bin/halley
# and save this as /etc/systemd/system/halley.service.

[Unit]
Description=Halley, an Erlang cluster's long-lived HTTP connections
Wants=network-online.target epmd.service
After=network-online.target epmd.service

[Service]
ExecStart=/usr/local/bin/halley serve --name halley@HOST --connect app@HOST \
    --cookie-file /etc/halley/cookie --listen 0.0.0.0:8000 --drain %[2]s%[6]s
User=halley
Restart=on-failure
RestartSec=1s

# What %[1]d connections need, and what Halley keeps for itself.
LimitNOFILE=%[4]d
# Above this the kernel kills: what doctor calls "memory", and twice --max-pending-total,
# which is then to be given too; by default it is a quarter of the machine's memory.
#MemoryMax=%[5]s

# SIGTERM ends the streams within --drain; then Halley leaves the cluster.
KillSignal=SIGTERM
KillMode=mixed
TimeoutStopSec=%[3]d

# Halley writes no file. ProcSubset=pid must not be added: /proc/sys tells Halley how
# many clients may wait to be accepted, /proc/meminfo its memory.
NoNewPrivileges=yes
ProtectSystem=strict
ProtectHome=yes
PrivateTmp=yes
PrivateDevices=yes
ProtectClock=yes
ProtectHostname=yes
ProtectControlGroups=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
LockPersonality=yes
MemoryDenyWriteExecute=yes
SystemCallArchitectures=native
SystemCallFilter=@system-service
UMask=0077
# Nothing that only root may do. For ports below 1024, CAP_NET_BIND_SERVICE in both:
CapabilityBoundingSet=
AmbientCapabilities=

[Install]
WantedBy=multi-user.target
`

// stopSlack is what stopping may take beyond --drain: leaving the cluster.
const stopSlack = 20 * time.Second

// Unit prints a systemd unit for n connections on the machine of f.
func Unit(w io.Writer, f Facts, n int) error {
	drain := httpd.DefaultOptions().Drain
	flags := ""
	if n > httpd.DefaultMaxConnections {
		flags = fmt.Sprintf(" \\\n    --max-connections %d", n)
	}
	j := judge{f: f}
	memory := uint64(n)*j.each() + pendingFactor*f.MemTotal.first()/pendingShare
	_, err := fmt.Fprintf(w, unit, n, drain, int((drain + stopSlack).Seconds()), Files(n),
		fmt.Sprintf("%dM", memory>>20+1), flags)
	return err
}
