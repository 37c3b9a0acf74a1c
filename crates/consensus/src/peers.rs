//! The way to other nodes. There are none yet: a group has one voter, and whatever openraft would send
//! answers "unreachable". A cluster replaces this file's `Peers` by a transport; openraft's network traits
//! are the seam.

use std::future::Future;

use bytes::Bytes;
use openraft::errors::{RPCError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::RPCOption;
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, VoteRequest, VoteResponse,
};
use openraft::{RaftNetworkFactory, RaftNetworkV2};

use crate::types::{Snapshot, Types, Vote};

/// Makes connections to peers.
pub(crate) struct Peers;

/// A peer that is not there.
pub(crate) struct NoPeer {
    target: u64,
}

/// There is no way to a node.
#[derive(Debug, thiserror::Error)]
#[error("there is no transport to node {target}")]
struct NoTransport {
    target: u64,
}

impl NoPeer {
    fn unreachable(&self) -> Unreachable<Types> {
        Unreachable::new(&NoTransport { target: self.target })
    }
}

impl RaftNetworkFactory<Types> for Peers {
    type Network = NoPeer;

    async fn new_client(&mut self, target: u64, _node: &()) -> NoPeer {
        NoPeer { target }
    }
}

impl RaftNetworkV2<Types> for NoPeer {
    type SnapshotData = Bytes;

    async fn append_entries(
        &mut self,
        _rpc: AppendEntriesRequest<Types>,
        _option: RPCOption,
    ) -> Result<AppendEntriesResponse<Types>, RPCError<Types>> {
        Err(RPCError::Unreachable(self.unreachable()))
    }

    async fn vote(
        &mut self,
        _rpc: VoteRequest<Types>,
        _option: RPCOption,
    ) -> Result<VoteResponse<Types>, RPCError<Types>> {
        Err(RPCError::Unreachable(self.unreachable()))
    }

    async fn full_snapshot(
        &mut self,
        _vote: Vote,
        _snapshot: Snapshot,
        _cancel: impl Future<Output = ReplicationClosed> + Send + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<Types>, StreamingError<Types>> {
        Err(StreamingError::Unreachable(self.unreachable()))
    }
}
