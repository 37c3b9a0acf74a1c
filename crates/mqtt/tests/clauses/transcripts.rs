//! Plays the transcripts in `tests/transcripts`, each against a broker core of its own. Each is played twice: as it is
//! written, and with what clients send one byte at a time [MQTT-4.2-1].

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Instant;

use mqtt::MqttConfig;
use testkit::on_core;
use wire::mqtt::Version;

use crate::hand::Hand;
use crate::link::{Broker, PATIENCE};
use crate::script::{self, Action, Exchange, Pattern, Step};

/// Turns in which something unexpected may still come at the end of an exchange.
const LAST_TURNS: usize = 20;

macro_rules! transcripts {
    ($($number:literal $name:ident)*) => {
        /// Every file that is played.
        const PLAYED: &[&str] = &[$(concat!($number, "-", stringify!($name), ".txt")),*];

        $(#[test]
        fn $name() {
            play(concat!($number, "-", stringify!($name), ".txt"));
        })*
    };
}

transcripts! {
    "01" mqtt_1_5_5_1_a_remaining_length_of_five_bytes
    "02" mqtt_1_5_5_1_padded_lengths_and_identifiers
    "03" mqtt_1_5_4_1_text_that_is_not_utf_8
    "04" mqtt_1_5_4_2_text_with_the_null_character
    "05" mqtt_1_5_4_3_a_byte_order_mark_is_data
    "06" mqtt_2_2_2_1_properties_beyond_the_packet
    "07" mqtt_2_2_2_2_properties_out_of_place_and_twice
    "08" mqtt_4_2_1_packets_in_any_pieces
    "09" mqtt_4_13_1_1_bodies_that_are_cut_or_go_on
    "10" mqtt_3_6_1_1_flags_of_the_fixed_header
    "11" mqtt_3_3_1_4_quality_of_service_three
    "12" mqtt_2_2_1_3_packet_identifier_zero
    "13" mqtt_3_2_2_15_a_packet_that_is_too_large
    "14" mqtt_3_1_0_1_a_first_packet_that_is_not_connect
    "15" mqtt_3_1_0_2_a_second_connect
    "16" mqtt_3_1_2_1_protocol_names_and_levels
    "17" mqtt_3_1_2_3_the_reserved_connect_flag
    "18" mqtt_3_1_2_11_will_flags_without_a_will
    "19" mqtt_3_1_2_16_user_names_and_passwords
    "20" mqtt_3_1_3_6_no_client_identifier
    "21" mqtt_3_1_3_5_client_identifiers_of_all_kinds
    "22" mqtt_3_1_2_4_clean_start_ends_the_old_session
    "23" mqtt_3_2_2_3_session_present
    "24" mqtt_3_1_4_3_take_over
    "25" mqtt_3_1_3_9_take_over_and_the_will
    "26" mqtt_3_1_2_11_values_that_connect_must_not_have
    "27" mqtt_3_1_2_23_session_expiry_and_our_cap
    "28" mqtt_3_2_2_22_server_keep_alive
    "29" mqtt_3_1_2_22_silence
    "30" mqtt_3_1_4_6_what_follows_connect_at_once
    "31" mqtt_3_2_0_1_connack_comes_first_and_once
    "32" mqtt_3_2_2_12_wills_of_every_quality_and_retained
    "33" mqtt_4_12_0_1_authentication_methods
    "35" mqtt_3_3_2_2_topics_that_are_none
    "36" mqtt_3_3_2_8_topic_aliases_that_name_nothing
    "37" mqtt_3_3_2_7_an_alias_may_be_given_another_topic
    "38" mqtt_3_1_2_26_aliases_towards_the_client
    "39" mqtt_3_1_2_25_a_discarded_publish_sets_no_alias
    "40" mqtt_3_3_4_6_a_subscription_identifier_from_a_client
    "41" mqtt_3_3_2_14_a_response_topic_with_a_wildcard
    "42" mqtt_3_3_1_3_dup_is_not_passed_on
    "43" mqtt_3_3_2_17_properties_are_passed_on_unaltered
    "44" mqtt_3_3_2_5_message_expiry
    "45" mqtt_4_3_3_13_an_exchange_goes_on_when_its_message_has_expired
    "46" mqtt_3_3_1_5_retained_messages
    "48" mqtt_3_3_1_12_retain_towards_subscribers
    "49" mqtt_3_3_4_1_nobody_subscribes
    "50" mqtt_4_3_3_9_refused_publications
    "51" mqtt_4_6_0_5_order
    "52" mqtt_4_3_2_4_acknowledged_when_it_is_ours
    "53" mqtt_4_3_3_10_the_same_qos_2_publish_again
    "54" mqtt_4_4_0_1_a_qos_2_identifier_over_a_connection
    "55" mqtt_4_3_3_11_pubrel_of_an_unknown_identifier
    "56" mqtt_2_2_1_5_acknowledgements_of_unknown_identifiers
    "57" mqtt_4_9_0_2_a_subscriber_refuses
    "58" mqtt_2_2_1_5_acknowledgements_of_the_wrong_kind
    "59" mqtt_4_4_0_1_what_was_not_acknowledged_comes_again
    "61" mqtt_4_9_0_2_the_receive_maximum_of_the_client
    "62" mqtt_3_3_4_9_a_smaller_receive_maximum
    "63" mqtt_3_3_4_7_our_receive_maximum
    "64" mqtt_3_1_2_24_what_is_too_large_for_one_client
    "65" mqtt_3_9_2_1_words_that_do_not_fit
    "66" mqtt_3_1_2_29_request_problem_information
    "67" mqtt_3_8_3_2_no_filters
    "68" mqtt_4_7_1_1_filters_that_are_none
    "69" mqtt_3_8_3_5_subscription_options
    "70" mqtt_3_9_3_1_one_code_for_each_filter
    "71" mqtt_3_8_4_1_retained_messages_come_once
    "72" mqtt_3_8_4_3_subscribing_again
    "73" mqtt_3_8_3_3_no_local
    "74" mqtt_3_3_4_3_overlapping_subscriptions
    "75" mqtt_3_8_2_1_subscription_identifiers
    "76" mqtt_4_7_2_1_what_filters_match
    "77" mqtt_3_10_4_1_unsubscribe
    "78" mqtt_3_2_2_3_what_connack_says_is_available
    "79" mqtt_4_8_2_1_a_share_beside_a_subscription
    "80" mqtt_4_8_2_2_share_names
    "81" mqtt_4_8_2_retained_messages_and_shares
    "82" mqtt_4_8_2_4_a_member_goes
    "84" mqtt_4_8_2_6_a_member_refuses
    "86" mqtt_3_14_4_3_good_bye_and_the_will
    "87" mqtt_3_1_3_9_a_will_that_waits
    "88" mqtt_3_1_2_14_a_will_has_its_own_properties
    "89" mqtt_3_14_2_2_disconnect_changes_the_expiry
    "90" mqtt_3_14_4_1_after_disconnect
}

/// How the bytes of clients come.
#[derive(Clone, Copy, Debug)]
enum Pieces {
    AsWritten,
    OneByOne,
}

fn folder() -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "tests", "transcripts"].iter().collect()
}

fn play(name: &'static str) {
    let text = std::fs::read_to_string(folder().join(name)).expect("the transcript is there");
    let exchanges = Rc::new(script::parse(name, &text));
    let wrong = Rc::new(RefCell::new(Vec::new()));
    on_core(async {
        // At the same time: a broker takes a while to start.
        let both = [Pieces::AsWritten, Pieces::OneByOne].map(|pieces| {
            let (exchanges, wrong) = (Rc::clone(&exchanges), Rc::clone(&wrong));
            tokio::task::spawn_local(async move {
                let broker = Broker::start().await;
                for exchange in exchanges.iter() {
                    if let Err((line, what)) = play_one(exchange, &broker, pieces).await {
                        let title = &exchange.title;
                        wrong.borrow_mut().push(format!("{name}:{line}: {title} ({pieces:?})\n{what}"));
                    }
                }
            })
        });
        for played in both {
            played.await.expect("a transcript does not panic");
        }
    });
    let wrong = wrong.take();
    assert!(wrong.is_empty(), "{} exchanges went wrong\n\n{}\n", wrong.len(), wrong.join("\n\n"));
}

/// Answers the line where it went otherwise than is written, and how.
async fn play_one(exchange: &Exchange, broker: &Broker, pieces: Pieces) -> Result<(), (usize, String)> {
    let mut stage = Stage { broker, config: &exchange.config, pieces, clients: BTreeMap::new() };
    let mut last = 0;
    for Step { line, action } in &exchange.steps {
        stage.play(action).await.map_err(|what| (*line, what))?;
        last = *line;
    }
    stage.end().await.map_err(|what| (last, what))
}

/// A broker and the clients that are connected to it.
struct Stage<'a> {
    broker: &'a Broker,
    /// Of the listener, if they are not the usual ones.
    config: &'a Option<MqttConfig>,
    pieces: Pieces,
    clients: BTreeMap<String, Hand>,
}

impl Stage<'_> {
    async fn play(&mut self, action: &Action) -> Result<(), String> {
        match action {
            Action::Connect(client, version) => {
                let (connect, connack) = greeting(client, *version);
                self.send(client, &connect);
                self.hear(client, &connack).await
            }
            Action::Send(client, bytes) => {
                self.send(client, bytes);
                Ok(())
            }
            Action::Hear(client, wanted) => self.hear(client, wanted).await,
            Action::Break(client) => {
                self.client(client)?;
                self.clients.remove(client).into_iter().for_each(Hand::vanish);
                Ok(())
            }
            Action::Close(client) => self.close(client).await,
            Action::Wait(time) => {
                self.turn();
                self.clients.values_mut().for_each(|hand| hand.pass(*time));
                Ok(())
            }
        }
    }

    fn send(&mut self, client: &str, bytes: &[u8]) {
        let hand = self.clients.entry(client.to_owned()).or_insert_with(|| match self.config {
            Some(config) => self.broker.hand_with(config.clone()),
            None => self.broker.hand(),
        });
        match self.pieces {
            Pieces::AsWritten => hand.send(bytes),
            Pieces::OneByOne => bytes.chunks(1).for_each(|byte| hand.send(byte)),
        }
    }

    async fn hear(&mut self, client: &str, wanted: &Pattern) -> Result<(), String> {
        let is_over = |hand: &Hand| {
            hand.said().len() >= wanted.len() || !wanted.begins_with(hand.said()) || hand.is_closing()
        };
        self.until(client, is_over).await?;
        let hand = self.client(client)?;
        let said = hand.take_said(hand.said().len().min(wanted.len()));
        if said.len() == wanted.len() && wanted.begins_with(&said) {
            return Ok(());
        }
        let more = script::words(hand.said().iter().copied().map(Some));
        let said = script::words(said.iter().copied().map(Some));
        let end = if hand.is_closing() { ", and closed" } else { "" };
        Err(format!("  expected: {}\n  said:     {said}\n  and more: {more}{end}", wanted.words()))
    }

    async fn close(&mut self, client: &str) -> Result<(), String> {
        self.until(client, |hand| hand.is_closing() || !hand.said().is_empty()).await?;
        let hand = self.client(client)?;
        if !hand.said().is_empty() {
            let said = script::words(hand.said().iter().copied().map(Some));
            return Err(format!("  expected: close\n  said:     {said}"));
        }
        self.clients.remove(client).into_iter().for_each(Hand::vanish);
        Ok(())
    }

    /// Lets the broker work until there is what is waited for, or time is over.
    async fn until(&mut self, client: &str, is_over: impl Fn(&Hand) -> bool) -> Result<(), String> {
        let begun = Instant::now();
        loop {
            self.turn();
            if is_over(self.client(client)?) || begun.elapsed() > PATIENCE {
                return Ok(());
            }
            tokio::task::yield_now().await;
        }
    }

    /// Everybody takes what is there.
    fn turn(&mut self) {
        self.clients.values_mut().for_each(Hand::hear);
    }

    fn client(&mut self, name: &str) -> Result<&mut Hand, String> {
        self.clients.get_mut(name).ok_or_else(|| format!("  `{name}` is not connected"))
    }

    /// Nothing came beyond what is written.
    async fn end(mut self) -> Result<(), String> {
        for _ in 0..LAST_TURNS {
            self.turn();
            tokio::task::yield_now().await;
        }
        let mut more = Vec::new();
        for (name, hand) in self.clients {
            if hand.is_closing() || !hand.said().is_empty() {
                let end = if hand.is_closing() { ", and closed" } else { "" };
                let said = script::words(hand.said().iter().copied().map(Some));
                more.push(format!("  more was said to `{name}` at the end: {said}{end}"));
            }
            hand.vanish();
        }
        if more.is_empty() { Ok(()) } else { Err(more.join("\n")) }
    }
}

/// CONNECT of a client that wants nothing in particular, and its answer.
fn greeting(client: &str, version: Version) -> (Vec<u8>, Pattern) {
    let (connect, connack) = match version {
        Version::V5 => (
            b"\x00\x04MQTT\x05\x02\x00\x00\x00".as_slice(),
            "20 ( 00 00 ( 21 04 00 27 00 90 00 00 22 00 20 ) )",
        ),
        Version::V311 => (b"\x00\x04MQTT\x04\x02\x00\x00".as_slice(), "20 02 00 00"),
        Version::V31 => (b"\x00\x06MQIsdp\x03\x02\x00\x00".as_slice(), "20 02 00 00"),
    };
    let connect = crate::hand::packet(0x10, &[connect, &crate::hand::field(client.as_bytes())].concat());
    (connect, Pattern::parse(connack).expect("words"))
}

#[test]
fn every_transcript_is_played_and_says_what_it_shows() {
    let files =
        std::fs::read_dir(folder()).expect("the folder is there").map(|file| file.unwrap().file_name());
    let files: BTreeSet<String> = files.map(|name| name.into_string().unwrap()).collect();
    let played: BTreeSet<String> = PLAYED.iter().map(|name| (*name).to_owned()).collect();
    let files: BTreeSet<String> = files.into_iter().filter(|name| name != "README.md").collect();
    assert_eq!(files, played);
    for name in PLAYED {
        let text = std::fs::read_to_string(folder().join(name)).unwrap();
        let (number, rest) = name.split_once("-mqtt_").expect("number and clause");
        let clause: Vec<&str> = rest.split('_').take_while(|part| part.parse::<u32>().is_ok()).collect();
        let (last, section) = clause.split_last().expect("a clause");
        let (clause, section) = (
            format!("[MQTT-{}-{last}]", section.join(".")),
            format!("[section {}.{last}", section.join(".")),
        );
        let first = format!("# {}. ", number.trim_start_matches('0'));
        assert!(text.starts_with(&first) && (text.contains(&clause) || text.contains(&section)), "{name}");
    }
}
