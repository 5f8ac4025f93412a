//! What the page must not be able to do, whoever's code runs in it.

use std::net::TcpListener;
use std::time::Duration;

use serde_json::json;

use crate::desk::in_the_window;
use crate::page::Page;

#[test]
fn the_page_is_fenced_in() {
    in_the_window("fences", async |page: Page| {
        scripts_of_strangers_do_not_run(&page).await;
        only_two_commands_are_open(&page).await;
        the_page_cannot_leave(&page).await;
    });
}

async fn scripts_of_strangers_do_not_run(page: &Page) {
    let eval = page
        .script("try { return ['ran', eval('1 + 1')] } catch (error) { return error.name }")
        .await;
    assert_eq!(eval, json!("EvalError"));
    let inline = page
        .script(
            "const script = document.createElement('script'); \
             script.textContent = 'window.strangerRan = true'; \
             document.head.append(script); \
             return window.strangerRan ?? 'no'",
        )
        .await;
    assert_eq!(inline, json!("no"));
    let frozen = page.script("return Object.isFrozen(Object.prototype)").await;
    assert_eq!(frozen, json!(true));
}

async fn only_two_commands_are_open(page: &Page) {
    // The proof that a refusal below is not just a broken call.
    let snapshot = page.invoke("rpc", json!({ "command": { "cmd": "snapshot" } })).await.unwrap();
    assert_eq!(snapshot["reply"], "snapshot");

    let refused = page.invoke("rpc", json!({ "command": { "cmd": "format_disk" } })).await;
    let refused = refused.unwrap_err().to_string();
    assert!(refused.contains("format_disk"), "{refused}");
    for command in [
        "format_disk",
        "plugin:window|close",
        "plugin:event|emit",
        "plugin:webview|create_webview",
        "plugin:app|version",
        "plugin:path|resolve_directory",
        "plugin:tray|new",
    ] {
        let refused = page.invoke(command, json!({})).await.unwrap_err().to_string();
        assert!(
            refused.contains("not allowed") || refused.contains("not found"),
            "{command}: {refused}"
        );
    }
}

async fn the_page_cannot_leave(page: &Page) {
    let elsewhere = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    elsewhere.set_nonblocking(true).unwrap();
    let url = format!("http://{}/", elsewhere.local_addr().unwrap());
    let home = page.script("return location.href").await;

    let fetch = "const [url, done] = arguments; \
        fetch(url, { mode: 'no-cors' }).then(() => done('reached'), (error) => done(error.name))";
    assert_eq!(page.script_async(fetch, vec![json!(url)]).await, json!("TypeError"));
    let picture = "const [url, done] = arguments; const image = new Image(); \
        image.onload = () => done('loaded'); image.onerror = () => done('blocked'); \
        image.src = url";
    assert_eq!(page.script_async(picture, vec![json!(url)]).await, json!("blocked"));
    page.script(&format!("location.href = '{url}'")).await;
    page.script(&format!("window.open('{url}')")).await;
    tokio::time::sleep(Duration::from_secs(1)).await;

    assert_eq!(page.script("return location.href").await, home);
    page.wait_for("state-sentence", Duration::from_secs(1)).await;
    let caller = elsewhere.accept().map(|(_, from)| from);
    assert!(caller.is_err(), "the page reached {url}");
}
