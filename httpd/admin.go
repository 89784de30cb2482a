package httpd

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"golang.org/x/net/netutil"
)

// maxAdmin is how many connections the admin side serves at a time; more wait.
const maxAdmin = 16

// Admin is the second address: metrics and health, served by net/http.
type Admin struct {
	listener net.Listener
	server   *http.Server
	done     chan error
}

// NewAdmin listens on addr. ready tells why Halley is not ready, nil if it is.
func NewAdmin(addr string, metrics prometheus.Gatherer, ready func() error, log *slog.Logger) (*Admin, error) {
	listener, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("--admin: %w", err)
	}
	listener = netutil.LimitListener(listener, maxAdmin)
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(metrics, promhttp.HandlerOpts{}))
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		if err := ready(); err != nil {
			http.Error(w, "not ready: "+err.Error(), http.StatusServiceUnavailable)
			return
		}
		fmt.Fprintln(w, "ok")
	})
	a := &Admin{
		listener: listener,
		server: &http.Server{
			Handler:           mux,
			ReadHeaderTimeout: 5 * time.Second,
			WriteTimeout:      30 * time.Second,
			IdleTimeout:       60 * time.Second,
			ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelWarn),
		},
		done: make(chan error, 1),
	}
	go func() { a.done <- a.server.Serve(listener) }()
	return a, nil
}

// Addr is the address listened on.
func (a *Admin) Addr() net.Addr { return a.listener.Addr() }

// Stop ends the admin side, in the middle of an answer if ctx is over.
func (a *Admin) Stop(ctx context.Context) error {
	err := a.server.Shutdown(ctx)
	if err != nil {
		err = errors.Join(err, a.server.Close())
	}
	<-a.done
	return err
}
