package main

import (
	"context"
	"errors"
	"fmt"
	"net/url"

	"halley/test/peers"
)

// peerServers are those of package peers.
func peerServers() []server {
	var list []server
	for _, kind := range peers.All() {
		list = append(list, server{kind.Name, kind.Note, func(ctx context.Context, r *rig, addr string) (*running, error) {
			return startPeer(ctx, r, kind, addr)
		}})
	}
	return list
}

func startPeer(ctx context.Context, r *rig, kind peers.Kind, addr string) (*running, error) {
	p, err := kind.Start(ctx, peers.Config{Dir: r.dir, Addr: addr, Host: nodeHost, Cookie: r.cookie, Epmd: r.epmd, Stderr: r.log})
	if err != nil {
		return nil, err
	}
	up := &running{version: p.Version, pids: p.PIDs, url: p.URL, concurrent: true, stop: func() {
		if err := p.Stop(); err != nil {
			fmt.Fprintln(r.log, err)
		}
	}}
	switch {
	case p.Dest.Erlang != nil:
		up.source = &erlSource{rig: r, dest: p.Dest.Erlang.String(), single: p.Dest.Erlang.Single}
		err = r.connect(ctx, p.Dest.Erlang.Node)
	case p.Dest.Control != nil:
		up.source, up.concurrent = &controlSource{p.Dest.Control}, false
	default:
		var u *url.URL
		if u, err = url.Parse(p.Dest.Publish); err == nil {
			up.source = &httpSource{addr: u.Host, path: u.Path}
		}
	}
	if err != nil {
		up.stop()
		return nil, err
	}
	return up, nil
}

// controlSource is a server that makes its messages itself, as it is told.
type controlSource struct{ control *peers.Control }

func (s *controlSource) send(_ context.Context, l load) (sent, error) {
	done, err := s.control.Send(peers.Load{Count: l.count, Rate: int(l.rate), Bytes: l.bytes, FirstUID: int64(l.first), LastUID: int64(l.last)})
	if err == nil && done.Lost+done.Absent > 0 {
		err = fmt.Errorf("%d messages found a full socket, %d nobody", done.Lost, done.Absent)
	}
	return sent{int(done.Took.Microseconds())}, err
}

func (s *controlSource) oneUID() bool { return false }

func (s *controlSource) fanOut(_ context.Context, n, bytes int) error {
	done, err := s.control.All(bytes)
	if err == nil && done.Messages != int64(n) {
		err = errors.New("not everybody got it")
	}
	return err
}
