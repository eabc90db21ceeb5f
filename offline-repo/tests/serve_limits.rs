// SPDX-License-Identifier: GPL-3.0-or-later
//! `serve` among those who are slow, many or gone, and its end.

#![allow(clippy::unwrap_used)]
#![cfg(feature = "serve")]

mod support;

use std::fs::{self, File};
use std::io::{BufReader, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use support::low::Low;
use support::served::{Answer, BIG, Served, head, until};

/// More than all buffers on the way hold.
const SIZE: u64 = 64 << 20;

/// A server of a repository with a large file.
fn served(more: &str) -> (Low, Served) {
    let low = Low::published();
    let place = low.repository().join(BIG);
    fs::create_dir_all(place.parent().unwrap()).unwrap();
    File::create(&place).unwrap().set_len(SIZE).unwrap();
    let served = Served::of(&low.repository(), &format!("--plain {more}"));
    (low, served)
}

/// Asks for the large file, and reads the head of the answer.
fn download(served: &Served) -> BufReader<TcpStream> {
    let mut stream = served.connect();
    write!(
        stream,
        "GET /{BIG} HTTP/1.1\r\nHost: gateway\r\nConnection: close\r\n\r\n"
    )
    .unwrap();
    let mut reader = BufReader::new(stream);
    assert_eq!(head(&mut reader).unwrap().0, 200);
    reader
}

/// How much is left to read; a connection may be reset.
fn rest(reader: &mut impl Read) -> u64 {
    let mut block = vec![0; 1 << 20];
    let mut all = 0;
    loop {
        match reader.read(&mut block) {
            Ok(0) => return all,
            Ok(count) => all += count as u64,
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::ConnectionReset);
                return all;
            }
        }
    }
}

#[test]
fn who_takes_nothing_is_dropped_and_who_is_slow_is_not() {
    let (_low, served) = served("--patience 1");
    let mut idle = download(&served);
    let mut slow = download(&served);
    let (begun, mut taken) = (Instant::now(), 0);
    let mut block = vec![0; 512 << 10];
    while begun.elapsed() < Duration::from_secs(6) {
        slow.read_exact(&mut block).unwrap();
        taken += block.len() as u64;
        sleep(Duration::from_millis(200));
    }
    assert_eq!(served.metric("bastide_repo_slow_total"), 1);
    assert!(rest(&mut idle) < SIZE, "it was cut off");
    assert_eq!(taken + rest(&mut slow), SIZE);
}

#[test]
fn who_says_nothing_or_never_ends_is_dropped() {
    let (_low, served) = served("--patience 1");
    let mut silent = served.connect();
    let mut endless = served.connect();
    let mut kept = served.connect();
    endless.write_all(b"GET / HTTP/1.1\r\nHost: gateway\r\n").unwrap();
    let begun = Instant::now();
    // A header every now and then is no headway.
    while endless.write_all(b"X: y\r\n").is_ok() {
        assert!(begun.elapsed() < Duration::from_secs(10), "it may go on for ever");
        write!(kept, "HEAD /healthz HTTP/1.1\r\nHost: gateway\r\n\r\n").unwrap();
        let mut answer = [0; 12];
        kept.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"HTTP/1.1 200");
        let mut reader = BufReader::new(&kept);
        while !reader.buffer().ends_with(b"\r\n\r\n") {
            std::io::BufRead::fill_buf(&mut reader).unwrap();
        }
        sleep(Duration::from_millis(200));
    }
    assert_eq!(rest(&mut silent), 0);
    served.await_metric("bastide_repo_connections", 2);
    assert!(served.metric("bastide_repo_idle_total") >= 2);
    assert_eq!(served.metric("bastide_repo_slow_total"), 0);
}

/// A request of HTTP/2 as bytes (RFC 9113), its headers by the static table of RFC 7541.
fn request_of_http2(stream: u32, path: &str) -> Vec<u8> {
    let mut block = vec![0x82, 0x86, 0x04, u8::try_from(path.len()).unwrap()];
    block.extend(path.as_bytes());
    block.extend([0x01, 7]);
    block.extend(b"gateway");
    let (headers, ends) = (1, 0x4 | 0x1);
    let mut frame = vec![0, 0, u8::try_from(block.len()).unwrap(), headers, ends];
    frame.extend(stream.to_be_bytes());
    frame.extend(block);
    frame
}

/// HTTP/2 has windows of its own: nothing of the file goes out, while everything else on the connection does.
#[test]
fn who_stops_one_file_and_asks_for_others_is_dropped() {
    let (_low, served) = served("--patience 1");
    let mut stream = served.connect();
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").unwrap();
    // SETTINGS: the first window of a stream is 0.
    stream
        .write_all(&[0, 0, 6, 4, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0, 0])
        .unwrap();
    stream.write_all(&request_of_http2(1, &format!("/{BIG}"))).unwrap();
    let mut reader = stream.try_clone().unwrap();
    let heard = std::thread::spawn(move || rest(&mut reader));
    let begun = Instant::now();
    for number in 1.. {
        // A whole answer of no content.
        if stream
            .write_all(&request_of_http2(2 * number + 1, "/metadata/timestamp.json/"))
            .is_err()
        {
            break;
        }
        assert!(begun.elapsed() < Duration::from_secs(10), "it may go on for ever");
        sleep(Duration::from_millis(300));
    }
    assert!(
        (1..100_000).contains(&heard.join().unwrap()),
        "answers, and none of the file"
    );
    assert_eq!(served.metric("bastide_repo_slow_total"), 1);
    assert!(served.metric("bastide_repo_requests_total{status=\"4xx\"}") >= 1);
}

#[test]
fn there_is_room_for_so_many() {
    let (_low, served) = served("--connections 2");
    let first = download(&served);
    let second = download(&served);
    let mut third = served.connect();
    write!(
        third,
        "GET /healthz HTTP/1.1\r\nHost: gateway\r\nConnection: close\r\n\r\n"
    )
    .unwrap();
    third.set_read_timeout(Some(Duration::from_millis(700))).unwrap();
    let waited = third.read(&mut [0; 1]).unwrap_err();
    assert_eq!(waited.kind(), ErrorKind::WouldBlock);
    drop(first);
    third.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    assert_eq!(Answer::read(third).status, 200);
    drop(second);
}

#[test]
fn a_download_comes_to_its_end_when_the_server_is_to_end() {
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let (_low, mut served) = served("");
        let idle = served.connect();
        let mut reader = download(&served);
        let mut block = vec![0; 4 << 20];
        reader.read_exact(&mut block).unwrap();
        served.signal(signal);
        // Nobody new is taken.
        until(|| TcpStream::connect(served.address).is_err());
        assert_eq!(rest(&mut BufReader::new(idle)), 0, "who asked for nothing is sent away");
        sleep(Duration::from_millis(500));
        assert!(served.ended().is_none(), "it waits");
        assert_eq!(block.len() as u64 + rest(&mut reader), SIZE);
        served.ends(0);
    }
}

#[test]
fn who_does_not_come_to_an_end_is_not_waited_for() {
    let (_low, mut one) = served("--grace 1");
    let mut reader = download(&one);
    one.signal(Signal::SIGTERM);
    one.ends(0);
    assert!(rest(&mut reader) < SIZE);
    // A second signal asks for no patience.
    let (_low, mut other) = served("--grace 3600");
    let mut reader = download(&other);
    other.signal(Signal::SIGTERM);
    until(|| TcpStream::connect(other.address).is_err());
    assert!(other.ended().is_none());
    other.signal(Signal::SIGTERM);
    other.ends(0);
    assert!(rest(&mut reader) < SIZE);
}

#[test]
fn a_file_that_becomes_shorter_is_not_taken_for_whole() {
    let (low, served) = served("");
    let mut reader = download(&served);
    let place = low.repository().join(BIG);
    File::options()
        .write(true)
        .open(&place)
        .unwrap()
        .set_len(SIZE / 2)
        .unwrap();
    // Less than was announced, and the connection ends.
    assert!(rest(&mut reader) <= SIZE / 2);
    // Another file in its place does not mix with it.
    let mut reader = download(&served);
    fs::remove_file(&place).unwrap();
    fs::write(&place, "another").unwrap();
    assert_eq!(rest(&mut reader), SIZE / 2);
}
