package client

import (
	"context"

	"github.com/braiddb/braid/internal/catalog"
	"github.com/braiddb/braid/internal/wire"
)

// Cluster is the catalog as the master has it, with who leads what.
type Cluster struct {
	ID           string
	Version      uint64 // of the catalog
	MasterLeader catalog.NodeID
	Masters      []catalog.NodeID
	Nodes        []*catalog.Node
	Tables       []*catalog.Table
	Tablets      []ClusterTablet
}

// ClusterTablet is one tablet and its leader, 0 if none is known.
type ClusterTablet struct {
	*catalog.Tablet
	Leader catalog.NodeID
}

// Table gives the table of an id, or nil.
func (c *Cluster) Table(id uint32) *catalog.Table {
	for _, t := range c.Tables {
		if t.Id == id {
			return t
		}
	}
	return nil
}

// Cluster reads the whole catalog.
func (c *Client) Cluster(ctx context.Context) (*Cluster, error) {
	resp, err := c.transport.Catalog(ctx, &wire.CatalogRequest{Action: wire.CatalogRequest_ACTION_READ})
	if err != nil {
		return nil, err
	}
	if e := resp.Error; e != nil && e.Code != wire.Code_CODE_OK {
		return nil, &Error{Code: e.Code, Message: e.Message, Retriable: e.Code.Retriable()}
	}
	out := &Cluster{
		ID: resp.Catalog.ClusterId, Version: resp.Catalog.Version, MasterLeader: catalog.NodeID(resp.MasterLeader),
		Nodes: resp.Catalog.Nodes, Tables: resp.Catalog.Tables,
	}
	for _, r := range resp.Catalog.MasterReplicas {
		out.Masters = append(out.Masters, catalog.NodeID(r.Node))
	}
	for _, l := range resp.Tablets {
		out.Tablets = append(out.Tablets, ClusterTablet{l.Tablet, catalog.NodeID(l.LeaderNode)})
	}
	return out, nil
}
