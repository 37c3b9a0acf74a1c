//! [`Output`]: what is still to be written to one connection, as few buffers as possible. Hot path.

use std::collections::VecDeque;
use std::io::IoSlice;

use bytes::{Buf, Bytes, BytesMut};

/// Above this many unwritten bytes a connection is full: a front should feed it no more than it must.
const HIGH_MARK: usize = 256 * 1024;
/// Below this a full connection is drained again.
const LOW_MARK: usize = 64 * 1024;
/// A chunk of this size or less is copied behind what is there; a larger one is kept by reference.
const COPY_MAX: usize = 4 * 1024;
/// Bound: slices handed to one vectored write.
const SLICES_MAX: usize = 64;
/// A drained buffer larger than this is given back to the allocator.
const KEEP_MAX: usize = 16 * 1024;

/// Bytes for the peer, in order. Holds no memory while it is empty.
#[derive(Default)]
pub struct Output {
    /// Finished chunks, all before `tail`.
    chunks: VecDeque<Bytes>,
    /// What is being written now.
    tail: BytesMut,
    /// Bytes in `chunks`.
    chunk_bytes: usize,
    was_full: bool,
}

impl Output {
    /// An empty output.
    pub fn new() -> Self {
        Self::default()
    }

    /// The buffer to encode small things into. What is put there follows everything before it.
    pub fn buffer(&mut self) -> &mut BytesMut {
        &mut self.tail
    }

    /// Appends a chunk: copied when small, shared when large.
    pub fn push(&mut self, chunk: Bytes) {
        if chunk.len() <= COPY_MAX {
            self.tail.extend_from_slice(&chunk);
            return;
        }
        self.seal_tail();
        self.chunk_bytes += chunk.len();
        self.chunks.push_back(chunk);
    }

    /// Bytes that are still to be written.
    pub fn len(&self) -> usize {
        self.chunk_bytes + self.tail.len()
    }

    /// Whether everything is written.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether the peer is slower than we are: above the high mark, until it falls below the low mark.
    pub fn is_full(&mut self) -> bool {
        if self.len() > HIGH_MARK {
            self.was_full = true;
        }
        self.was_full
    }

    /// Takes everything, as one buffer: for tests and simulations.
    pub fn take(&mut self) -> Bytes {
        let mut all = BytesMut::with_capacity(self.len());
        for chunk in self.chunks.drain(..) {
            all.extend_from_slice(&chunk);
        }
        all.extend_from_slice(&self.tail);
        self.tail.clear();
        self.chunk_bytes = 0;
        self.was_full = false;
        all.freeze()
    }

    /// Fills `slices` with the first bytes to be written.
    pub(crate) fn slices<'a>(&'a self, slices: &mut Vec<IoSlice<'a>>) {
        slices.extend(self.chunks.iter().take(SLICES_MAX - 1).map(|chunk| IoSlice::new(chunk)));
        if !self.tail.is_empty() && self.chunks.len() < SLICES_MAX {
            slices.push(IoSlice::new(&self.tail));
        }
    }

    /// The peer took `written` bytes. Answers whether a full output has just become drained.
    pub(crate) fn advance(&mut self, mut written: usize) -> bool {
        while written > 0 {
            let Some(first) = self.chunks.front_mut() else {
                self.tail.advance(written);
                break;
            };
            let step = written.min(first.len());
            first.advance(step);
            self.chunk_bytes -= step;
            written -= step;
            if first.is_empty() {
                self.chunks.pop_front();
            }
        }
        if self.is_empty() && (self.tail.capacity() > KEEP_MAX || self.chunks.capacity() > 8) {
            self.tail = BytesMut::new();
            self.chunks = VecDeque::new();
        }
        if self.was_full && self.len() < LOW_MARK {
            self.was_full = false;
            return true;
        }
        false
    }

    /// Gives the buffers of an empty output back.
    pub(crate) fn release(&mut self) {
        if self.is_empty() {
            self.tail = BytesMut::new();
            self.chunks = VecDeque::new();
        }
    }

    fn seal_tail(&mut self) {
        if !self.tail.is_empty() {
            let sealed = self.tail.split().freeze();
            self.chunk_bytes += sealed.len();
            self.chunks.push_back(sealed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(output: &Output) -> Vec<u8> {
        let mut slices = Vec::new();
        output.slices(&mut slices);
        slices.iter().flat_map(|slice| slice.to_vec()).collect()
    }

    #[test]
    fn keeps_order_between_small_and_large_chunks() {
        let mut output = Output::new();
        output.buffer().extend_from_slice(b"ab");
        output.push(Bytes::from(vec![b'L'; COPY_MAX + 1]));
        output.push(Bytes::from_static(b"cd"));
        let bytes = written(&output);
        assert_eq!(bytes.len(), output.len());
        assert_eq!(&bytes[..3], b"abL");
        assert_eq!(&bytes[bytes.len() - 3..], b"Lcd");
    }

    #[test]
    fn partial_writes_leave_the_rest_in_order() {
        let mut output = Output::new();
        output.buffer().extend_from_slice(b"0123");
        output.push(Bytes::from(vec![b'x'; COPY_MAX + 1]));
        output.buffer().extend_from_slice(b"end");
        let expected = written(&output);
        let mut seen = Vec::new();
        while !output.is_empty() {
            let step = 1000.min(output.len());
            seen.extend_from_slice(&written(&output)[..step]);
            output.advance(step);
        }
        assert_eq!(seen, expected);
    }

    #[test]
    fn full_until_below_the_low_mark() {
        let mut output = Output::new();
        output.push(Bytes::from(vec![0; HIGH_MARK + 1]));
        assert!(output.is_full());
        assert!(!output.advance(HIGH_MARK - LOW_MARK));
        assert!(output.is_full());
        assert!(output.advance(2));
        assert!(!output.is_full());
    }
}
