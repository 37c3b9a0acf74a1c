//! Frames on their way out: a list of chunks for one vectored write.
//!
//! Small fields are gathered in one growing buffer; large byte strings are kept as they are and never copied.

use bytes::{Bytes, BytesMut};

/// Byte strings shorter than this are copied: cheaper than one more entry in a vectored write.
const SHARED_LEN_MIN: usize = 512;

/// Room for the small fields of a frame: most responses need no more.
const FRAME_ROOM: usize = 256;

/// Room for the small fields between shared chunks, taken anew once less than `FRAME_ROOM` of it is left.
const INTERLEAVED_ROOM: usize = 4096;

/// Encoded frames as a list of chunks. Frames are appended whole or not at all.
#[derive(Debug, Default)]
pub struct Output {
    chunks: Vec<Chunk>,
    tail: BytesMut,
    /// Bytes in `chunks`.
    closed: usize,
}

/// A finished piece. An own piece may still have its frame's length written into it.
#[derive(Debug)]
enum Chunk {
    Own(BytesMut),
    Shared(Bytes),
}

/// Where a frame began.
#[derive(Clone, Copy)]
pub(super) struct FrameStart {
    chunk: usize,
    at: usize,
    closed: usize,
}

impl Output {
    /// An empty output, which has allocated nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Bytes of all frames together.
    pub fn len(&self) -> usize {
        self.closed + self.tail.len()
    }

    /// Whether there is nothing to write.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Takes everything as chunks in order, for a vectored write. No chunk is empty. What stays behind holds no memory.
    pub fn take_chunks(&mut self) -> Vec<Bytes> {
        let tail = std::mem::take(&mut self.tail);
        if !tail.is_empty() {
            self.chunks.push(Chunk::Own(tail));
        }
        self.closed = 0;
        let chunks = std::mem::take(&mut self.chunks);
        chunks
            .into_iter()
            .map(|chunk| match chunk {
                Chunk::Own(bytes) => bytes.freeze(),
                Chunk::Shared(bytes) => bytes,
            })
            .collect()
    }

    /// Takes everything as one string of bytes. Copies unless there is a single chunk: for tests and tools.
    pub fn take_bytes(&mut self) -> Bytes {
        let mut chunks = self.take_chunks();
        match chunks.len() {
            1 => chunks.remove(0),
            _ => chunks.concat().into(),
        }
    }

    /// The buffer in which small fields are gathered.
    pub(super) fn tail(&mut self) -> &mut BytesMut {
        &mut self.tail
    }

    /// Appends bytes without copying them, unless they are few.
    pub(super) fn put_shared(&mut self, bytes: &Bytes) {
        if bytes.len() < SHARED_LEN_MIN {
            self.tail.extend_from_slice(bytes);
            return;
        }
        self.close_tail();
        self.closed += bytes.len();
        self.chunks.push(Chunk::Shared(bytes.clone()));
    }

    /// Begins a frame: leaves room for its length.
    pub(super) fn begin_frame(&mut self) -> FrameStart {
        self.tail.reserve(FRAME_ROOM);
        let start = FrameStart { chunk: self.chunks.len(), at: self.tail.len(), closed: self.closed };
        self.tail.extend_from_slice(&[0; 4]);
        start
    }

    /// Ends a frame: writes its length. `None` if the frame is longer than a length can say.
    pub(super) fn end_frame(&mut self, start: FrameStart) -> Option<()> {
        let len = self.len() - start.closed - start.at - 4;
        let prefix = i32::try_from(len).ok()?.to_be_bytes();
        let first = match self.chunks.get_mut(start.chunk) {
            Some(Chunk::Own(bytes)) => bytes,
            Some(Chunk::Shared(_)) => unreachable!("the four bytes of the length precede any shared chunk"),
            None => &mut self.tail,
        };
        first[start.at..start.at + 4].copy_from_slice(&prefix);
        Some(())
    }

    /// Removes everything from the start of a frame on.
    pub(super) fn abandon_frame(&mut self, start: FrameStart) {
        if let Some(Chunk::Own(first)) = self.chunks.drain(start.chunk..).next() {
            self.tail = first;
        }
        self.tail.truncate(start.at);
        self.closed = start.closed;
    }

    fn close_tail(&mut self) {
        if !self.tail.is_empty() {
            self.closed += self.tail.len();
            self.chunks.push(Chunk::Own(self.tail.split()));
        }
        if self.tail.capacity() < FRAME_ROOM {
            self.tail = BytesMut::with_capacity(INTERLEAVED_ROOM);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(output: &mut Output, pieces: &[Bytes]) {
        let start = output.begin_frame();
        pieces.iter().for_each(|piece| output.put_shared(piece));
        output.end_frame(start).unwrap();
    }

    #[test]
    fn large_pieces_are_the_same_memory() {
        let large = Bytes::from(vec![7u8; 4096]);
        let mut output = Output::new();
        frame(&mut output, &[Bytes::from_static(b"head"), large.clone(), Bytes::from_static(b"end")]);
        frame(&mut output, std::slice::from_ref(&large));
        assert_eq!(output.len(), 4 + 4 + 4096 + 3 + 4 + 4096);
        let chunks = output.take_chunks();
        assert_eq!(chunks.len(), 4);
        assert_eq!(chunks[0], [&4103i32.to_be_bytes()[..], b"head"].concat());
        assert_eq!(chunks[2], [b"end", &4096i32.to_be_bytes()[..]].concat());
        assert!(chunks[1].as_ptr() == large.as_ptr() && chunks[3].as_ptr() == large.as_ptr());
        assert!(output.is_empty());
    }

    #[test]
    fn an_abandoned_frame_leaves_the_earlier_ones() {
        let large = Bytes::from(vec![7u8; 4096]);
        for pieces in [vec![], vec![large.clone(), Bytes::from_static(b"x"), large.clone()]] {
            let mut output = Output::new();
            frame(&mut output, &[Bytes::from_static(b"kept")]);
            let start = output.begin_frame();
            pieces.iter().for_each(|piece| output.put_shared(piece));
            output.abandon_frame(start);
            assert_eq!(output.len(), 8);
            frame(&mut output, &[Bytes::from_static(b"next")]);
            assert_eq!(output.take_bytes(), &b"\0\0\0\x04kept\0\0\0\x04next"[..]);
        }
    }
}
