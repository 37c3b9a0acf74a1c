//! MQTT clients alone: every one of them does all that a client does, in each version that it speaks; then what takes
//! several of them or a broker that crashes.

use std::net::SocketAddr;
use std::process::{Command, ExitStatus};

use e2e::{Broker, Message, Process, Program, Settings, Subscriber, missing, wait_until};

/// A client program towards a broker.
struct Client<'a> {
    program: Program,
    address: SocketAddr,
    /// Its options in every run, as our programs name them: first the version.
    options: &'a [&'a str],
}

const V3: &str = "version=4";
const V5: &str = "version=5";
const VERSIONS: [&str; 2] = [V3, V5];

/// Everything, for a program that reaches the broker over TCP.
fn does_everything(program: Program, versions: &[&str]) {
    if !missing(&[program]) {
        let broker = Broker::start();
        versions.iter().for_each(|version| does_everything_at(program, broker.mqtt(), &[version]));
    }
}

fn does_everything_at(program: Program, address: SocketAddr, options: &[&str]) {
    let client = Client { program, address, options };
    client.exchanges_at_every_qos();
    client.finds_what_is_retained();
    client.leaves_a_will();
    client.unsubscribes();
    client.returns_to_its_session();
    client.shares_a_subscription();
    if options[0] == V5 {
        client.carries_properties();
    }
}

impl Client<'_> {
    fn subscribe(&self, filter: &str, more: &[&str]) -> Subscriber {
        self.program.subscribe(self.address, filter, &[self.options, more].concat())
    }

    fn publish(&self, messages: &[Message]) {
        self.program.publish(self.address, messages, self.options);
    }

    fn exchanges_at_every_qos(&self) {
        let mut reader = self.subscribe("house/+/temp", &["qos=2"]);
        let sent: Vec<_> =
            (0..30).map(|n| Message::new("house/attic/temp", vec![n, 0, 255], n % 3)).collect();
        self.publish(&sent);
        let mut received = reader.take(sent.len());
        // Order holds per QoS.
        received.sort_by_key(|message| message.payload[0]);
        assert_eq!(received, sent);
        reader.finish();
    }

    fn finds_what_is_retained(&self) {
        let retained = Message::new("status/door", "open", 1).retained();
        self.publish(std::slice::from_ref(&retained));
        let mut reader = self.subscribe("status/#", &["qos=1"]);
        assert_eq!(reader.next_message(), retained);
        self.publish(&[Message::new("status/door", "", 1).retained()]);
        assert_eq!(reader.next_message().payload, b"", "the removal is delivered");
        let mut late = self.subscribe("status/#", &["qos=1"]);
        let marker = Message::new("status/window", "shut", 1);
        self.publish(std::slice::from_ref(&marker));
        assert_eq!(late.next_message(), marker, "nothing is retained any more");
        reader.finish();
        late.finish();
    }

    fn leaves_a_will(&self) {
        let mut reader = self.subscribe("wills/#", &["qos=1"]);
        let will = ["will_topic=wills/w", "will_payload=00ff", "id=mortal"];
        self.subscribe("nothing", &will).kill();
        assert_eq!(reader.next_message(), Message::new("wills/w", [0, 255], 1));
        self.subscribe("nothing", &will).finish();
        let marker = Message::new("wills/none", "", 1);
        self.publish(std::slice::from_ref(&marker));
        assert_eq!(reader.next_message(), marker, "who leaves in good order has no will");
        reader.finish();
    }

    fn unsubscribes(&self) {
        let mut reader = self.subscribe("stay/#,leave/#", &["qos=1"]);
        reader.leave("leave/#");
        let last = Message::new("stay/2", "b", 1);
        self.publish(&[Message::new("leave/1", "a", 1), last.clone()]);
        assert_eq!(reader.next_message(), last, "what was unsubscribed does not come");
        reader.finish();
    }

    fn returns_to_its_session(&self) {
        let id = format!("id=keeper-{}", self.options[0].replace('=', "-"));
        let options = ["qos=2", "clean=false", &id];
        self.subscribe("mail/#", &options).finish();
        let away: Vec<_> = (0..20_u8).map(|n| Message::new("mail/x", [n], 1 + n % 2)).collect();
        self.publish(&away);
        let mut reader = self.subscribe("mail/#", &options);
        let mut received = reader.take(away.len());
        received.sort_by_key(|message| message.payload[0]);
        assert_eq!(received, away);
        reader.finish();
        // A clean session begins with nothing.
        let mut reader = self.subscribe("mail/#", &["qos=2", "clean=true", &id]);
        let marker = Message::new("mail/x", "new", 2);
        self.publish(std::slice::from_ref(&marker));
        assert_eq!(reader.next_message(), marker);
        reader.finish();
    }

    fn shares_a_subscription(&self) {
        let mut members =
            ["id=first", "id=second"].map(|id| self.subscribe("$share/crew/jobs/#", &["qos=1", id]));
        let jobs: Vec<_> = (0..40_u8).map(|n| Message::new("jobs/x", [n], 1)).collect();
        self.publish(&jobs);
        let mut done = [Vec::new(), Vec::new()];
        wait_until("all jobs are done", || {
            for (member, done) in members.iter_mut().zip(&mut done) {
                done.extend(std::iter::from_fn(|| member.arrived()));
            }
            (done[0].len() + done[1].len() >= jobs.len()).then_some(())
        });
        assert!(done.iter().all(|done| !done.is_empty()), "both work: {done:?}");
        let mut all = done.concat();
        all.sort_by_key(|message| message.payload[0]);
        assert_eq!(all, jobs, "each comes to one of them");
        members.into_iter().for_each(Subscriber::finish);
    }

    fn carries_properties(&self) {
        let sent = Message {
            content_type: Some("text/plain".to_owned()),
            response_topic: Some("answers/7".to_owned()),
            correlation: Some(vec![0, 1, 255]),
            expiry: Some(1000),
            payload_format: Some(1),
            ..Message::new("p/q", "21.5", 1).with_user("a", "1").with_user("b", "2").with_user("b", "3")
        };
        let mut reader = self.subscribe("p/#", &["qos=1"]);
        self.publish(std::slice::from_ref(&sent));
        let received = reader.next_message();
        assert!((900..=1000).contains(&received.expiry.expect("an expiry interval")), "{received:?}");
        assert_eq!(Message { expiry: sent.expiry, ..received }, sent);
        reader.finish();
    }
}

#[test]
fn paho_python() {
    does_everything(Program::Paho, &VERSIONS);
}

#[test]
fn aiomqtt() {
    does_everything(Program::Aiomqtt, &VERSIONS);
}

#[test]
fn mqtt_js() {
    does_everything(Program::MqttJs, &VERSIONS);
}

#[test]
fn paho_java_for_3_1_1() {
    does_everything(Program::PahoJavaV3, &[V3]);
}

#[test]
fn paho_java_for_5() {
    does_everything(Program::PahoJavaV5, &[V5]);
}

#[test]
fn rumqttc() {
    does_everything(Program::Rumqttc, &VERSIONS);
}

#[test]
fn a_page_in_a_browser() {
    if missing(&[Program::Browser]) {
        return;
    }
    let listener = "[[mqtt.listeners]]\nname = \"web\"\ntransport = \"ws\"\nbind = \"127.0.0.1:0\"\n";
    let broker = Broker::start_with(Settings::new().with_file(listener));
    let mut browser = Program::Browser.start("serve", broker.listener("web"), &[]);
    let endpoint = browser.next_event(&["ready"])["endpoint"].as_str().expect("an endpoint").to_owned();
    for version in VERSIONS {
        let options = [version, &format!("browser={endpoint}")];
        does_everything_at(Program::Browser, broker.listener("web"), &options);
    }
    browser.finish();
}

#[test]
fn properties_of_5_arrive_unaltered() {
    if missing(&[Program::Paho, Program::MqttJs]) {
        return;
    }
    let broker = Broker::start();
    let sent = Message {
        content_type: Some("application/octet-stream".to_owned()),
        response_topic: Some("answers/7".to_owned()),
        correlation: Some(vec![0, 1, 255]),
        expiry: Some(1000),
        payload_format: Some(0),
        ..Message::new("p/q", [0, 255], 1).with_user("b", "1").with_user("a", "2").with_user("b", "3")
    };
    let mut paho = Program::Paho.subscribe(broker.mqtt(), "p/#", &["qos=1"]);
    let mut mqtt_js = Program::MqttJs.subscribe(broker.mqtt(), "p/#", &["qos=1"]);
    Program::Paho.publish(broker.mqtt(), std::slice::from_ref(&sent), &[]);
    let received = paho.next_message();
    assert!((990..=1000).contains(&received.expiry.expect("an expiry interval")), "{received:?}");
    assert_eq!(Message { expiry: sent.expiry, ..received }, sent);
    // MQTT.js tells user properties by name.
    let received = mqtt_js.next_message();
    let by_name =
        [("b", "1"), ("b", "3"), ("a", "2")].map(|(name, value)| (name.to_owned(), value.to_owned()));
    assert_eq!(received.user, by_name);
    assert_eq!((received.content_type, received.correlation), (sent.content_type, sent.correlation));
}

#[test]
fn retained_messages_come_first_and_can_be_removed() {
    if missing(&[Program::Paho, Program::MqttJs]) {
        return;
    }
    let mut broker = Broker::start();
    let retained = Message::new("status/door", "open", 1).retained();
    Program::Paho.publish(broker.mqtt(), std::slice::from_ref(&retained), &[]);
    for (program, version) in
        [(Program::Paho, "version=5"), (Program::MqttJs, "version=4"), (Program::MqttJs, "version=5")]
    {
        let mut reader = program.subscribe(broker.mqtt(), "status/#", &["qos=1", version]);
        assert_eq!(reader.next_message(), retained, "{program:?} {version}");
    }
    broker.kill_9();
    broker.restart();
    let mut reader = Program::Paho.subscribe(broker.mqtt(), "status/#", &["qos=1"]);
    assert_eq!(reader.next_message(), retained, "after a crash");
    Program::MqttJs.publish(broker.mqtt(), &[Message::new("status/door", "", 1).retained()], &[]);
    assert_eq!(reader.next_message().payload, b"", "the removal is delivered");
    let mut late = Program::Paho.subscribe(broker.mqtt(), "status/#", &["qos=1"]);
    let marker = Message::new("status/window", "shut", 1);
    Program::Paho.publish(broker.mqtt(), std::slice::from_ref(&marker), &[]);
    assert_eq!(late.next_message(), marker, "nothing is retained any more");
}

#[test]
fn a_session_keeps_what_came_while_its_client_was_away() {
    if missing(&[Program::Paho, Program::MqttJs]) {
        return;
    }
    let mut broker = Broker::start();
    let away: Vec<_> = (0..20_u8).map(|n| Message::new("mail/x", [n], 1 + n % 2)).collect();
    for (program, version) in [(Program::Paho, "version=4"), (Program::MqttJs, "version=5")] {
        let options = ["qos=2", "clean=false", "id=keeper", version];
        program.subscribe(broker.mqtt(), "mail/#", &options).finish();
        Program::Paho.publish(broker.mqtt(), &away, &["window=1"]);
        broker.kill_9();
        broker.restart();
        let mut reader = program.subscribe(broker.mqtt(), "mail/#", &options);
        let mut received = reader.take(away.len());
        // Order holds per QoS.
        received.sort_by_key(|message| message.payload[0]);
        assert_eq!(received, away, "{program:?} {version}");
        reader.finish();
        // A clean start ends the session, so that the next program begins anew.
        program.subscribe(broker.mqtt(), "mail/#", &["id=keeper", version]).finish();
    }
}

fn mosquitto(program: &str, broker: &Broker, arguments: &[&str]) -> Command {
    // On a pipe its debugging lines would wait until a buffer is full.
    let mut command = Command::new("stdbuf");
    command.args(["-oL", program]);
    let (host, port) = (broker.mqtt().ip().to_string(), broker.mqtt().port().to_string());
    command.args(["-h", &host, "-p", &port]).args(arguments);
    command
}

fn run(command: Command) -> ExitStatus {
    let mut process = Process::start(command);
    process.close_input();
    process.wait()
}

#[test]
fn mosquitto_to_mosquitto() {
    if missing(&[Program::Mosquitto]) {
        return;
    }
    let broker = Broker::start();
    for version in ["311", "5"] {
        let arguments = ["-V", version, "-d", "-q", "2", "-t", "m/+", "-F", "got %t %q %r %p", "-C", "3"];
        let mut reader = Process::start(mosquitto("mosquitto_sub", &broker, &arguments));
        while !reader.next_line().starts_with("Subscribed") {}
        for qos in ["0", "1", "2"] {
            let arguments = ["-V", version, "-q", qos, "-t", "m/x", "-m", "hello world"];
            assert!(run(mosquitto("mosquitto_pub", &broker, &arguments)).success());
            let got = std::iter::repeat_with(|| reader.next_line()).find(|line| line.starts_with("got"));
            assert_eq!(got.as_deref(), Some(format!("got m/x {qos} 0 hello world").as_str()));
        }
        reader.finish();
    }
}

#[test]
fn mosquitto_returns_to_its_session_and_finds_retained_messages() {
    if missing(&[Program::Mosquitto]) {
        return;
    }
    let broker = Broker::start();
    let session = ["-c", "-i", "mosquitto", "-q", "1", "-t", "s/#"];
    let subscribed = mosquitto("mosquitto_sub", &broker, &[&session[..], &["-E"]].concat());
    assert!(run(subscribed).success());
    let publish = ["-q", "1", "-t", "s/1", "-r", "-m", "kept"];
    assert!(run(mosquitto("mosquitto_pub", &broker, &publish)).success());
    let returned = [&session[..], &["-C", "1", "-F", "%t %r %p"]].concat();
    let mut reader = Process::start(mosquitto("mosquitto_sub", &broker, &returned));
    assert_eq!(reader.next_line(), "s/1 0 kept");
    let fresh = ["-C", "1", "-t", "s/#", "-F", "%t %r %p"];
    let mut reader = Process::start(mosquitto("mosquitto_sub", &broker, &fresh));
    assert_eq!(reader.next_line(), "s/1 1 kept");
}

#[test]
fn mosquitto_has_wills_leaves_shares_and_carries_properties() {
    if missing(&[Program::Mosquitto]) {
        return;
    }
    let broker = Broker::start();
    let subscribe = |arguments: &[&str]| {
        let shown = ["-d", "-q", "1", "-F", "got %t %p"];
        let mut reader = Process::start(mosquitto("mosquitto_sub", &broker, &[&shown, arguments].concat()));
        while !reader.next_line().starts_with("Subscribed") {}
        reader
    };
    let publish = |arguments: &[&str]| {
        assert!(run(mosquitto("mosquitto_pub", &broker, &[&["-q", "1"], arguments].concat())).success());
    };
    let next = |reader: &mut Process| {
        std::iter::repeat_with(|| reader.next_line()).find(|line| line.starts_with("got")).expect("endless")
    };

    let mut heir = subscribe(&["-t", "wills/#"]);
    let will = ["--will-topic", "wills/w", "--will-payload", "farewell", "--will-qos", "1", "-t", "nothing"];
    subscribe(&will).kill();
    assert_eq!(next(&mut heir), "got wills/w farewell");

    let session = ["-V", "5", "-c", "-x", "3600", "-i", "mover", "-q", "1"];
    let left = ["-t", "new/#", "-U", "old/#", "-E"];
    for arguments in [&["-t", "old/#", "-E"][..], &left] {
        assert!(run(mosquitto("mosquitto_sub", &broker, &[&session, arguments].concat())).success());
    }
    publish(&["-t", "old/1", "-m", "a"]);
    publish(&["-t", "new/1", "-m", "b"]);
    let arguments = [&session[..], &["-t", "new/#", "-C", "1", "-F", "%t %p"]].concat();
    let mut reader = Process::start(mosquitto("mosquitto_sub", &broker, &arguments));
    assert_eq!(reader.next_line(), "new/1 b", "what was unsubscribed does not come");

    let mut crew = ["first", "second"].map(|id| subscribe(&["-i", id, "-t", "$share/crew/jobs"]));
    for job in ["1", "2"] {
        publish(&["-t", "jobs", "-m", job]);
    }
    let done = crew.each_mut().map(next);
    assert!(done.contains(&"got jobs 1".into()) && done.contains(&"got jobs 2".into()), "{done:?}");

    let shown = "got %P|%C|%D|%R|%E|%F";
    let mut reader = subscribe(&["-V", "5", "-t", "p/#", "-F", shown]);
    let mut arguments = vec!["-V", "5", "-t", "p/q", "-m", "x"];
    let properties = [
        ["content-type", "text/plain"],
        ["correlation-data", "c-7"],
        ["response-topic", "answers/7"],
        ["message-expiry-interval", "1000"],
        ["payload-format-indicator", "1"],
    ];
    properties.iter().for_each(|property| arguments.extend(["-D", "publish", property[0], property[1]]));
    arguments.extend(["-D", "publish", "user-property", "a", "1"]);
    publish(&arguments);
    assert_eq!(next(&mut reader).replace("|999|", "|1000|"), "got a:1|text/plain|c-7|answers/7|1000|1");
}

#[test]
fn mosquitto_asks_and_is_answered() {
    if missing(&[Program::Mosquitto]) {
        return;
    }
    let broker = Broker::start();
    for version in ["311", "5"] {
        let shown = if version == "5" { "got %R %p" } else { "got answers/7 %p" };
        let arguments = ["-V", version, "-d", "-q", "1", "-t", "questions", "-F", shown];
        let mut answerer = Process::start(mosquitto("mosquitto_sub", &broker, &arguments));
        while !answerer.next_line().starts_with("Subscribed") {}
        let arguments = ["-V", version, "-q", "1", "-t", "questions", "-e", "answers/7", "-m", "how warm?"];
        let mut asker = Process::start(mosquitto("mosquitto_rr", &broker, &arguments));
        let asked = std::iter::repeat_with(|| answerer.next_line()).find(|line| line.starts_with("got"));
        let asked = asked.expect("endless");
        assert_eq!(asked, "got answers/7 how warm?");
        let answer_to = asked.split(' ').nth(1).expect("a topic");
        let arguments = ["-V", version, "-q", "1", "-t", answer_to, "-m", "21.5"];
        assert!(run(mosquitto("mosquitto_pub", &broker, &arguments)).success());
        assert_eq!(asker.next_line(), "21.5");
        assert!(asker.wait().success());
    }
}
