package cnode

import (
	"testing"
)

func TestCluster_HiddenAndPing(t *testing.T) {
	forEachOTP(t, func(t *testing.T, o otp) {
		epmd := startEPMD(t)
		n := startNode(t, epmd, nil)
		e := startErl(t, o, epmd, uniqueName("e")+"@localhost")
		e.want("pong", "net_adm:ping('%s')", n.o.Name)
		e.want("[]", "nodes()")
		e.want("['"+n.o.Name+"']", "nodes(hidden)")
		e.want("pong", "net_adm:ping('%s')", n.o.Name)
	})
}
