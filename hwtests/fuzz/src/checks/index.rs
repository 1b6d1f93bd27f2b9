//! Batches of commands, as a journal record holds them. Option 1 frames the input as commands: the fuzzer
//! then needs not guess lengths.

use format::JOURNAL_HEADER_BYTES;
use index::{LoggedCommand, decode_batch};

use crate::{bounded, options};

const AT: u32 = JOURNAL_HEADER_BYTES as u32;

/// The body of a batch of `commands`, each with the bytes of its data; `data` is all of that.
pub(crate) fn frame(count: u32, commands: &[u8], data: &[u8]) -> Vec<u8> {
    let mut body = vec![1, 0, 0, 0];
    body.extend((commands.len() as u32).to_le_bytes());
    body.extend(count.to_le_bytes());
    body.extend([0; 4]);
    body.extend_from_slice(commands);
    body.extend_from_slice(data);
    body
}

/// The one form of these commands, with this data.
fn encode(commands: &[LoggedCommand], data: &[u8]) -> Vec<u8> {
    let mut encoded = Vec::new();
    for LoggedCommand { command, data } in commands {
        encoded.extend(postcard::to_stdvec(&(command, data.len() as u32)).expect("commands encode"));
    }
    frame(commands.len() as u32, &encoded, data)
}

pub(crate) fn batch(data: &[u8]) {
    let Some((options, rest)) = options(data) else { return };
    let body = match rest.split_first() {
        Some((count, commands)) if options & 1 != 0 => frame(u32::from(*count), commands, &[]),
        _ => rest.to_vec(),
    };
    // serde makes room for at most 1 MiB of a list before its first element; lists nest two deep. A row in
    // memory is up to 64 times its encoding, and a growing list is there twice.
    let decoded = bounded(body.len(), 128, 4 << 20, || decode_batch(&body, AT));
    let Ok(commands) = decoded else { return };
    let end = AT + body.len() as u32;
    let mut at = None;
    for LoggedCommand { data, .. } in &commands {
        assert!(data.start <= data.end && data.end <= end, "data lies in its record");
        assert!(at.is_none_or(|at| at == data.start), "data lies in the commands' order");
        at = Some(data.end);
    }
    assert!(at.is_none_or(|at| at == end), "data ends with its record");
    // Numbers have several encodings, so that the bytes may differ; what they say must not.
    let data_at = commands.first().map_or(body.len(), |first| (first.data.start - AT) as usize);
    let again = encode(&commands, &body[data_at..]);
    let decoded: Vec<_> = decode_batch(&again, AT).expect("what was decoded encodes to something that decodes");
    let said =
        |commands: &[LoggedCommand]| -> Vec<_> { commands.iter().map(|c| (c.command.clone(), c.data.len())).collect() };
    assert_eq!(said(&decoded), said(&commands), "a batch says the same again");
    if again.len() == body.len() {
        assert_eq!(again, body, "a batch of the shortest form has one form");
    }
}
