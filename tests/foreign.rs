//! Programs in other languages as services: the Python gRPC server and the shell script of
//! `examples/`, beside the gateway that tells of them.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod common;

use std::path::Path;

use blackhole_node::rpc::client::channel_to;
use common::processes::eventually;
use common::{Lab, PATIENCE, command, service};
use tonic::codegen::http::uri::PathAndQuery;
use tonic_prost::ProstCodec;

fn example(name: &str) -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("examples").join(name).display().to_string()
}

/// What the greeter answers; a greeter that does not run keeps its callers waiting.
async fn greet(socket: &Path, name: &str) -> String {
    let answer = tokio::time::timeout(PATIENCE, call_greeter(socket, name)).await;
    answer.expect("the greeter answers in time").unwrap()
}

/// Calls `demo.Greeter/Greet`, whose messages are `google.protobuf.StringValue`.
async fn call_greeter(socket: &Path, name: &str) -> Result<String, tonic::Status> {
    let mut client = tonic::client::Grpc::new(channel_to(socket));
    client.ready().await.map_err(|error| tonic::Status::unavailable(error.to_string()))?;
    let path = PathAndQuery::from_static("/demo.Greeter/Greet");
    let codec = ProstCodec::<String, String>::default();
    let answer = client.unary(tonic::Request::new(name.to_owned()), path, codec).await?;
    Ok(answer.into_inner())
}

#[tokio::test]
async fn a_python_server_and_a_shell_script_are_services_like_the_others() {
    let lab = Lab::new();
    let greeter = command(["python3", &example("greeter.py")]);
    let heartbeat = command([example("heartbeat.sh").as_str()]);
    let greeter = service("greeter", &greeter, "readiness = \"grpc\"\n");
    let heartbeat = service("heartbeat", &heartbeat, "restart_policy = \"on_failure\"\n");
    let mut node = lab
        .node(&format!("{greeter}{heartbeat}"))
        .set("services.gateway.enabled=true")
        .set("api.http_port=0")
        .up();

    node.console.line("greeter-0 ready in");
    assert_eq!(greet(&lab.socket("greeter-0"), "world").await, "hello, world");
    node.console.line("greeting  name=world");
    node.console.line("beat 1");
    for name in ["greeter-0", "heartbeat-0", "gateway-0"] {
        assert_eq!(lab.phase(name), "ready", "{name}");
    }
    let logs = lab.done(&["logs", "greeter"]);
    assert!(logs.contains("greeting") && logs.contains("world"), "{logs}");
    // The gateway's picture may be a second old.
    let api = lab.api();
    eventually("/health shows both as healthy", || {
        let services = common::http::get(&api, "/health").json()["services"].take();
        ["greeter", "heartbeat"].iter().all(|name| services[name]["status"] == "healthy")
    });

    let pid = lab.pid("greeter-0");
    common::processes::kill_dead(pid);
    // Whoever calls while it is away waits for the next one instead of being refused.
    assert_eq!(greet(&lab.socket("greeter-0"), "again").await, "hello, again");
    assert_ne!(lab.pid("greeter-0"), pid);
    node.stop();
}
