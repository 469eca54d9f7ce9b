//! Serving, health, reflection and clients together, over real Unix sockets.

use std::os::unix::net::UnixStream;
use std::time::Duration;

use tokio_stream::StreamExt;
use tonic::Code;
use tonic::service::Routes;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_reflection::pb::{v1, v1alpha};

use super::pb::node::StatusFeedRequest;
use super::pb::node::status_feed_client::StatusFeedClient;
use super::testing::{NEVER, Served, channel_over};
use super::{Health, Peers, Sockets, client, serve};

const NAMES: &[&str] = &["blackhole.storage.v1.Storage"];

fn asked(service: &str) -> HealthCheckRequest {
    HealthCheckRequest { service: service.to_owned() }
}

#[tokio::test]
async fn health_answers_for_the_process_and_for_its_service_only() {
    let served = Served::start(Routes::default(), NAMES, NEVER);
    let mut health = HealthClient::new(served.channel());
    for known in ["", NAMES[0]] {
        let answer = health.check(asked(known)).await.unwrap().into_inner();
        assert_eq!(answer.status(), ServingStatus::Serving);
    }
    assert_eq!(health.check(asked("other")).await.unwrap_err().code(), Code::NotFound);
    let mut watch = health.watch(asked("other")).await.unwrap().into_inner();
    assert_eq!(watch.next().await.unwrap().unwrap().status(), ServingStatus::ServiceUnknown);
    served.end().await;
}

#[tokio::test]
async fn a_watcher_is_told_not_serving_and_does_not_hold_the_drain() {
    let served = Served::start(Routes::default(), NAMES, NEVER);
    let mut health = HealthClient::new(served.channel());
    let mut watch = health.watch(asked("")).await.unwrap().into_inner();
    assert_eq!(watch.next().await.unwrap().unwrap().status(), ServingStatus::Serving);
    let dir = served.dir.path().to_owned();
    let ending = served.tell();
    assert_eq!(watch.next().await.unwrap().unwrap().status(), ServingStatus::NotServing);
    assert!(watch.next().await.is_none());
    ending.await.unwrap().unwrap();
    assert!(!dir.exists());
}

#[tokio::test]
async fn check_says_not_serving_on_a_connection_that_is_still_open() {
    let health = Health::serving(NAMES);
    let served = Served::start(Routes::default(), NAMES, NEVER);
    served.health.begin_drain();
    let mut client = HealthClient::new(served.channel());
    let answer = client.check(asked(NAMES[0])).await.unwrap().into_inner();
    assert_eq!(answer.status(), ServingStatus::NotServing);
    drop(health);
    served.end().await;
}

#[tokio::test]
async fn a_silent_connection_does_not_hold_the_drain() {
    let served = Served::start(Routes::default(), NAMES, NEVER);
    let silent = UnixStream::connect(served.socket()).unwrap();
    // It is accepted before this answer is given.
    HealthClient::new(served.channel()).check(asked("")).await.unwrap();
    served.end().await;
    drop(silent);
}

#[tokio::test]
async fn an_idle_connection_does_not_hold_the_drain() {
    let served = Served::start(Routes::default(), NAMES, NEVER);
    let mut idle = HealthClient::new(served.channel());
    idle.check(asked("")).await.unwrap();
    served.end().await;
    assert_eq!(idle.check(asked("")).await.unwrap_err().code(), Code::Unavailable);
}

#[tokio::test]
async fn a_peer_that_has_stopped_reading_does_not_hold_the_drain() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let served = Served::start(Routes::default(), NAMES, NEVER);
    let mut peer = tokio::net::UnixStream::connect(served.socket()).await.unwrap();
    // The preface and an empty SETTINGS frame (RFC 9113, sections 3.4 and 6.5), and then nothing.
    peer.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await.unwrap();
    peer.read_exact(&mut [0; 9]).await.unwrap();
    served.end().await;
}

#[tokio::test]
async fn a_stream_that_its_caller_keeps_open_is_cut_after_the_drain_time() {
    let served = Served::start(Routes::default(), NAMES, Duration::from_millis(50));
    let mut client = v1::server_reflection_client::ServerReflectionClient::new(served.channel());
    let (held, questions) = tokio::sync::mpsc::channel::<v1::ServerReflectionRequest>(1);
    let questions = tokio_stream::wrappers::ReceiverStream::new(questions);
    let mut answers = client.server_reflection_info(questions).await.unwrap().into_inner();
    served.end().await;
    assert!(answers.next().await.unwrap().is_err());
    drop(held);
}

#[tokio::test]
async fn both_reflection_versions_list_exactly_what_is_served() {
    use v1::server_reflection_request::MessageRequest as Newest;
    use v1alpha::server_reflection_request::MessageRequest as Alpha;
    let expected = [
        "blackhole.storage.v1.Storage",
        "grpc.health.v1.Health",
        "grpc.reflection.v1.ServerReflection",
        "grpc.reflection.v1alpha.ServerReflection",
    ];
    let served = Served::start(Routes::default(), NAMES, NEVER);

    let mut client = v1::server_reflection_client::ServerReflectionClient::new(served.channel());
    let list = Newest::ListServices(String::new());
    let ask = v1::ServerReflectionRequest { host: String::new(), message_request: Some(list) };
    let mut answers = client.server_reflection_info(tokio_stream::once(ask)).await.unwrap();
    let answer = answers.get_mut().next().await.unwrap().unwrap().message_response.unwrap();
    let v1::server_reflection_response::MessageResponse::ListServicesResponse(listed) = answer
    else {
        panic!("{answer:?}")
    };
    let mut names: Vec<_> = listed.service.into_iter().map(|service| service.name).collect();
    names.sort();
    assert_eq!(names, expected);

    let mut client =
        v1alpha::server_reflection_client::ServerReflectionClient::new(served.channel());
    let list = Alpha::ListServices(String::new());
    let ask = v1alpha::ServerReflectionRequest { host: String::new(), message_request: Some(list) };
    let mut answers = client.server_reflection_info(tokio_stream::once(ask)).await.unwrap();
    let answer = answers.get_mut().next().await.unwrap().unwrap().message_response.unwrap();
    let v1alpha::server_reflection_response::MessageResponse::ListServicesResponse(listed) = answer
    else {
        panic!("{answer:?}")
    };
    let mut names: Vec<_> = listed.service.into_iter().map(|service| service.name).collect();
    names.sort();
    assert_eq!(names, expected);
    served.end().await;
}

#[tokio::test]
async fn a_connected_stream_is_served_until_its_peer_closes_it() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let health = Health::serving(&[]);
    let routes = Routes::new(health.service());
    let sockets = Sockets { connected: vec![ours], ..Sockets::default() };
    let told = std::future::pending();
    let serving = tokio::spawn(serve(sockets, routes, Peers::Anyone, NEVER, told));
    let channel = channel_over(theirs).unwrap();
    let mut client = HealthClient::new(channel.clone());
    client.check(asked("")).await.unwrap();
    let unknown = StatusFeedClient::new(channel).get(StatusFeedRequest {}).await.unwrap_err();
    assert_eq!(unknown.code(), Code::Unimplemented);
    drop(client);
    serving.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_lost_fixed_connection_fails_every_call_at_once() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    drop(ours);
    let mut client = StatusFeedClient::new(channel_over(theirs).unwrap());
    client.get(StatusFeedRequest {}).await.unwrap_err();
    let lost = client.get(StatusFeedRequest {}).await.unwrap_err();
    assert_eq!(lost.code(), Code::Unavailable, "{lost}");
}

#[tokio::test]
async fn a_socket_that_nobody_serves_is_unavailable() {
    let dir = tempfile::tempdir().unwrap();
    let channel = client::channel_to(&dir.path().join("none.sock"));
    let error = HealthClient::new(channel).check(asked("")).await.unwrap_err();
    assert_eq!(error.code(), Code::Unavailable);
}
