//! A process that has no descriptor left: it neither spins nor forgets whom it serves, its control plane has some of its
//! own, and it takes in the next peer as soon as it can.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::Command;
use std::time::{Duration, Instant};

use tonic::Code;

use super::frames::Honest;
use super::support::{Service, Talk, processor_time, program, soak, take_descriptors};

const LISTENERS: [&str; 4] = ["a", "b", "c", "d"];

/// Peers of each listener: each of the four carries 128, and all together more than there are descriptors.
const PEERS: usize = 250;

fn starving() -> Service {
    let listener = |name| {
        format!(
            "[listeners.{name}]\nprotocol = \"ack\"\nbind = \"127.0.0.1:0\"\n\
             limits = {{ max_sessions_per_source = 1000 }}\n"
        )
    };
    let toml = LISTENERS.map(listener).concat();
    let mut shell = Command::new("sh");
    let limited = "ulimit -n 256; exec \"$0\" \"$@\"";
    shell.args(["-c", limited, &program()]);
    let service = Service::spawn(Service::home_for(&toml), shell, &[], &[]);
    service.announced("http");
    service
}

fn answers(talk: &mut Talk) {
    talk.send("?");
    talk.expect("received data!!");
}

/// Whether a new peer is answered, and not told no.
fn is_served(address: SocketAddr) -> bool {
    let mut talk = Talk::to(address);
    let mut answer = [0; 15];
    talk.0.write_all(b"?").is_ok()
        && talk.0.read_exact(&mut answer).is_ok()
        && answer == *b"received data!!"
}

/// How often the listeners have failed to accept, and how many peers they have told no for want of descriptors.
fn failures(service: &Service) -> (f64, f64) {
    let (_, text) = service.http_get("/metrics");
    let sum = |is: &dyn Fn(&str) -> bool| -> f64 {
        let found = text.lines().filter(|line| is(line));
        found
            .map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap())
            .sum()
    };
    let errors = sum(&|line| line.starts_with("switchboard_listener_accept_errors"));
    let refused = sum(&|line| {
        line.starts_with("switchboard_listener_connections") && line.contains("\"descriptors\"")
    });
    (errors, refused)
}

#[test]
fn without_descriptors_it_serves_whom_it_has_and_waits() {
    take_descriptors();
    let service = starving();
    let mut regulars: Vec<_> = LISTENERS.iter().map(|name| service.talk(name)).collect();
    regulars.iter_mut().for_each(answers);
    let mut honest = Honest::over_tcp(service.grpc());
    assert_eq!(honest.ask().0, Code::Ok);
    let addresses = LISTENERS.map(|name| service.address(name));
    let crowd: Vec<_> = (0..PEERS)
        .flat_map(|_| addresses.map(|address| TcpStream::connect(address).unwrap()))
        .collect();

    let lasts = Duration::from_secs(if soak() { 30 } else { 3 });
    let (began, used) = (Instant::now(), processor_time(service.pid()));
    let mut rounds = 0;
    while began.elapsed() < lasts {
        regulars.iter_mut().for_each(answers);
        assert_eq!(honest.ask().0, Code::Ok);
        // Whoever comes anew to ask how it is gets in, too.
        if rounds % 5 == 0 {
            assert_eq!(Honest::over_tcp(service.grpc()).ask().0, Code::Ok);
        }
        rounds += 1;
        std::thread::sleep(Duration::from_millis(100));
    }
    let used = processor_time(service.pid()) - used;
    let share = used.as_secs_f64() / began.elapsed().as_secs_f64();
    let (errors, refused) = failures(&service);
    println!(
        "{:.1} % of a core, {errors} failures, {refused} told no",
        share * 100.0
    );
    assert!(share < 0.05, "{share}");
    // There was a want of descriptors at all, and it was met with patience.
    assert!(errors > 0.0 && errors < 200.0, "{errors}");
    assert!(refused > 0.0, "{refused}");

    let released = Instant::now();
    drop(crowd);
    for address in addresses {
        // Until those who left are gone, one may still be told no.
        while !is_served(address) {
            assert!(released.elapsed() < Duration::from_secs(10));
        }
    }
    let took = released.elapsed();
    println!("served again after {took:?}");
    assert!(took < Duration::from_millis(1_200), "{took:?}");
    regulars.iter_mut().for_each(answers);
}
