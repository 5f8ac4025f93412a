//! What people wrote and were answered: sealed in the books, and gone when its time is over.

use neurino_core::{ChatMessage, IdempotencyKey, Role};

use super::*;
use crate::coordinator::now_ms;
use crate::payload::{PayloadKey, PayloadKeyError, hour_of};

on_both! {
    nothing_that_people_wrote_is_in_the_rows
    a_repeat_is_known_by_what_it_says
    a_key_is_free_again_once_its_job_ended_for_a_passing_reason
    what_was_changed_in_the_books_is_refused
    books_open_with_their_own_key_alone
    a_lost_key_costs_the_open_jobs_and_nothing_else
    what_is_shredded_is_gone_from_backups_too
    what_is_still_needed_outlives_the_steps_of_the_key
    disputed_payloads_are_kept_for_an_appeal
    books_of_former_versions_are_sealed_when_they_are_opened
    books_from_an_old_backup_open_without_their_payloads
}

const HOUR_MS: i64 = 3_600_000;

/// A job that says something.
fn asking(n: u128, words: &str, at_ms: i64) -> NewJob {
    let messages = vec![ChatMessage::new(Role::User, words)];
    let text = TextJob::new(ModelId::new("m").expect("valid"), messages, 1);
    NewJob { spec: JobSpec::Text(text), at_ms, ..new_job(n) }
}

fn answered(n: u128, words: &str, at_ms: i64) -> Settlement {
    let usage = Usage { prompt_tokens: 1, completion_tokens: 6 };
    let output = JobOutput::Text(TextOutput::single(words, FinishReason::Stop, usage));
    Settlement { output, ..settlement(n, n, 1, at_ms) }
}

async fn pay(store: &Store, n: u128, asked: &str, answer: &str, at_ms: i64) {
    store.admit(asking(n, asked, at_ms)).await.expect("writes");
    store.grant(grant(n, n, 1)).await.expect("writes");
    assert_eq!(store.settle(answered(n, answer, at_ms)).await.expect("writes"), Settled::Paid);
}

fn says(spec: Option<JobSpec>, words: &str) -> bool {
    spec.is_some_and(|spec| to_json(&spec).contains(words))
}

/// All columns of payloads of a job, as they lie there.
#[derive(Debug, Clone, PartialEq)]
struct Raw {
    spec: Option<String>,
    output: Option<String>,
    error: Option<String>,
    key: Option<Vec<u8>>,
    hour: Option<i64>,
}

async fn raw(c: &mut Connection, n: u128) -> Raw {
    let row = query("SELECT spec, output, error, payload_key, payload_hour FROM job WHERE id = $1");
    let row = row.bind(job(n).to_string()).fetch_one(c).await.expect("reads");
    let (spec, output, error, key, hour) = row;
    Raw { spec, output, error, key, hour }
}

async fn put(c: &mut Connection, n: u128, raw: &Raw) {
    let Raw { spec, output, error, key, hour } = raw;
    let words = match key {
        Some(_) => {
            "UPDATE job SET spec = $1, output = $2, error = $3, payload_hour = $4, payload_key = $6 \
             WHERE id = $5"
        }
        None => {
            "UPDATE job SET spec = $1, output = $2, error = $3, payload_hour = $4, payload_key = NULL \
             WHERE id = $5"
        }
    };
    let mut set = query(words)
        .bind(spec.as_ref())
        .bind(output.as_ref())
        .bind(error.as_ref())
        .bind(*hour)
        .bind(job(n).to_string());
    if let Some(key) = key {
        set = set.bind(key);
    }
    assert_eq!(set.execute(c).await.expect("writes"), 1);
}

async fn nothing_that_people_wrote_is_in_the_rows(books: Books) {
    let store = books.open().await;
    pay(&store, 1, "marzipan?", "gingerbread!", 1).await;
    store.admit(asking(2, "nutmeg?", 1)).await.expect("writes");
    let error = ErrorBody::new(ErrorCode::EngineFailed, "it choked on saffron");
    let failed = Close { error: error.clone(), ..close(2, JobState::Failed) };
    assert!(store.end(failed).await.expect("writes"));
    store.admit(asking(3, "vanilla?", 1)).await.expect("writes");
    store.grant(grant(3, 3, 1)).await.expect("writes");
    let given_up = Release { give_up: Some(error.clone()), ..release(3, 3, 1) };
    assert!(store.release(given_up).await.expect("writes"));
    let mut beside = books.connection().await;
    for n in 1..=3 {
        let text = format!("{:?}", raw(&mut beside, n).await);
        for word in ["marzipan", "gingerbread", "nutmeg", "saffron", "vanilla", "messages", "user"]
        {
            assert!(!text.contains(word), "{word} in {text}");
        }
    }
    for _ in 0..2 {
        // At first with the keys at hand, then with those of the books.
        let store = books.reopened(&store).await;
        assert!(says(store.spec(job(1)).await.expect("reads"), "marzipan"));
        let stored = store.job(job(1)).await.expect("reads").expect("it is there");
        assert_eq!(stored.output, Some(answered(1, "gingerbread!", 1).output));
        for n in 2..=3 {
            let stored = store.job(job(n)).await.expect("reads").expect("it is there");
            assert_eq!(stored.error.as_ref(), Some(&error));
            assert!(!stored.shredded);
        }
        store.close().await;
    }
}

impl Books {
    /// The books anew, after those before were closed.
    async fn reopened(&self, before: &Store) -> Store {
        before.close().await;
        self.open().await
    }
}

async fn a_repeat_is_known_by_what_it_says(books: Books) {
    let store = books.open().await;
    let key = || Some(IdempotencyKey::new("once").expect("valid"));
    let ask = |n, words| NewJob { key: key(), ..asking(n, words, 1) };
    assert_eq!(store.admit(ask(1, "marzipan?")).await.expect("writes"), Admitted::New);
    assert_eq!(store.admit(ask(2, "marzipan?")).await.expect("writes"), Admitted::Known(job(1)));
    assert_eq!(store.admit(ask(3, "nutmeg?")).await.expect("writes"), Admitted::Conflict);
    let store = books.reopened(&store).await;
    assert_eq!(store.admit(ask(4, "marzipan?")).await.expect("writes"), Admitted::Known(job(1)));
    let known = store.job_of_key(&PayerId::local(), &key().expect("one")).await.expect("reads");
    let (id, spec) = known.expect("it is there");
    assert_eq!(id, job(1));
    assert!(says(Some(spec), "marzipan"));
}

async fn a_key_is_free_again_once_its_job_ended_for_a_passing_reason(books: Books) {
    let store = books.open().await;
    let key = || Some(IdempotencyKey::new("once").expect("valid"));
    let ask = |n| NewJob { key: key(), ..asking(n, "marzipan?", 1) };
    let end = |n, code| Close {
        job: job(n),
        state: JobState::Failed,
        error: ErrorBody::new(code, "test"),
        at_ms: 2,
    };
    assert_eq!(store.admit(ask(1)).await.expect("writes"), Admitted::New);
    assert!(store.end(end(1, ErrorCode::NoNodeAvailable)).await.expect("writes"));
    assert_eq!(store.admit(ask(2)).await.expect("writes"), Admitted::New, "as it was told");
    assert!(store.end(end(2, ErrorCode::EngineFailed)).await.expect("writes"));
    assert_eq!(store.admit(ask(3)).await.expect("writes"), Admitted::Known(job(2)));
}

async fn what_was_changed_in_the_books_is_refused(books: Books) {
    let store = books.open().await;
    pay(&store, 1, "marzipan?", "gingerbread!", 1).await;
    pay(&store, 2, "nutmeg?", "cinnamon!", 2).await;
    let mut beside = books.connection().await;
    let (one, two) = (raw(&mut beside, 1).await, raw(&mut beside, 2).await);
    let flip = |text: &Option<String>| {
        text.as_ref().map(|text| {
            let other = if text.starts_with('A') { "B" } else { "A" };
            format!("{other}{}", &text[1..])
        })
    };
    let sealed = |error: StoreError| matches!(error, StoreError::Sealed { .. });
    for (what, changed) in [
        (
            "another job's",
            Raw { spec: two.spec.clone(), output: two.output.clone(), ..one.clone() },
        ),
        ("another job's key", Raw { key: two.key.clone(), ..one.clone() }),
        ("another job's row", two.clone()),
        (
            "one for the other",
            Raw { spec: one.output.clone(), output: one.spec.clone(), ..one.clone() },
        ),
        ("one letter", Raw { spec: flip(&one.spec), output: flip(&one.output), ..one.clone() }),
    ] {
        put(&mut beside, 1, &changed).await;
        assert!(sealed(store.spec(job(1)).await.expect_err(what)), "{what}");
        assert!(sealed(store.job(job(1)).await.map(drop).expect_err(what)), "{what}");
    }
    put(&mut beside, 1, &one).await;
    assert!(says(store.spec(job(1)).await.expect("as it was"), "marzipan"));
}

async fn books_open_with_their_own_key_alone(books: Books) {
    let store = books.open().await;
    store.admit(asking(1, "marzipan?", now_ms())).await.expect("writes");
    store.close().await;
    let path = books.database.payload_key();
    let own = std::fs::read(&path).expect("it was made");
    std::fs::remove_file(&path).expect("removed");
    let refused = async || match books.try_open(COORDINATOR).await.map(drop) {
        Err(CoordinatorError::PayloadKey(error)) => error,
        other => panic!("{other:?}"),
    };
    let missing = refused().await;
    assert!(matches!(missing, PayloadKeyError::Missing { .. }), "{missing}");
    assert!(missing.to_string().contains("coordinator/payload.key"), "{missing}");
    assert!(!path.exists(), "and none was made");
    PayloadKey::make(&path, hour_of(now_ms())).expect("made");
    let other = refused().await;
    assert!(matches!(other, PayloadKeyError::Other { .. }), "{other}");
    std::fs::write(&path, "something else").expect("written");
    assert!(matches!(refused().await, PayloadKeyError::File { .. }));
    std::fs::write(&path, own).expect("written");
    let store = books.open().await;
    assert!(says(store.spec(job(1)).await.expect("reads"), "marzipan"));
}

async fn a_lost_key_costs_the_open_jobs_and_nothing_else(books: Books) {
    let store = books.open().await;
    pay(&store, 1, "marzipan?", "gingerbread!", now_ms()).await;
    store.admit(asking(2, "nutmeg?", now_ms())).await.expect("writes");
    store.close().await;
    std::fs::write(books.database.payload_key(), "half of a k").expect("written");
    let renew = KeyFile { renew: true, ..books.key_file() };
    for renewed in [true, false] {
        let store = if renewed {
            Store::open(&books.database, "test", COORDINATOR, &renew).await.expect("opens")
        } else {
            books.open().await
        };
        store.end_shredded().await.expect("writes");
        assert!(store.open_jobs().await.expect("reads").is_empty());
        let paid = store.job(job(1)).await.expect("reads").expect("it is there");
        assert!(paid.shredded && paid.output.is_none() && paid.receipt.is_some());
        let ended = store.job(job(2)).await.expect("reads").expect("it is there");
        assert_eq!(ended.state, JobState::Failed);
        assert_eq!(ended.error.expect("it failed").code, ErrorCode::PayloadShredded);
        assert!(store.ledger_check().await.expect("reads").holds());
        store.close().await;
    }
    let store = Store::open(&books.database, "test", COORDINATOR, &renew).await.expect("opens");
    pay(&store, 3, "clove?", "anise!", now_ms()).await;
    store.close().await;
    let again = Store::open(&books.database, "test", COORDINATOR, &renew).await.expect("opens");
    assert!(says(again.spec(job(3)).await.expect("reads"), "clove"), "a good key is not replaced");
}

/// Books whose payload key was made two days ago.
async fn two_days_old(books: &Books) -> (Store, i64) {
    let now = now_ms();
    PayloadKey::make(&books.database.payload_key(), hour_of(now) - 48).expect("made");
    (books.open().await, now)
}

async fn what_is_shredded_is_gone_from_backups_too(books: Books) {
    let (store, now) = two_days_old(&books).await;
    pay(&store, 1, "marzipan?", "gingerbread!", now - 30 * HOUR_MS).await;
    pay(&store, 2, "nutmeg?", "cinnamon!", now - HOUR_MS).await;
    let mut beside = books.connection().await;
    let backup = raw(&mut beside, 1).await;
    let (receipts, postings) = (store.receipts(None, i64::MAX, 9).await.expect("reads").len(), 2);
    assert_eq!(store.prune(now - 24 * HOUR_MS, 0).await.expect("writes"), 1);
    assert_eq!(store.prune(now - 24 * HOUR_MS, 0).await.expect("writes"), 0, "once");
    let nothing = Raw { spec: None, output: None, error: None, key: None, hour: None };
    assert_eq!(raw(&mut beside, 1).await, nothing);
    let shredded = store.job(job(1)).await.expect("reads").expect("it is there");
    assert!(shredded.shredded && shredded.output.is_none() && shredded.receipt.is_some());
    assert_eq!(store.spec(job(1)).await.expect("reads"), None);
    assert!(says(store.spec(job(2)).await.expect("reads"), "nutmeg"), "it is young");
    assert_eq!(store.receipts(None, i64::MAX, 9).await.expect("reads").len(), receipts);
    let check = store.ledger_check().await.expect("reads");
    assert!(check.holds() && check.balances.iter().all(|account| account.postings >= postings));
    store.close().await;
    // Somebody has the books of yesterday, and takes this machine with its key.
    let key = PayloadKey::read(&books.database.payload_key()).expect("reads").expect("one");
    assert_eq!(key.from(), hour_of(now - 24 * HOUR_MS));
    let wrapped = backup.key.as_deref().expect("it had one");
    assert!(key.unwrap(job(1), wrapped).is_err(), "nobody can unwrap it any more");
    put(&mut beside, 1, &backup).await;
    let store = books.open().await;
    assert_eq!(store.spec(job(1)).await.expect("reads"), None);
    assert_eq!(raw(&mut beside, 1).await, nothing, "and it is cleared away again");
    assert!(says(store.spec(job(2)).await.expect("reads"), "nutmeg"));
}

async fn what_is_still_needed_outlives_the_steps_of_the_key(books: Books) {
    let (store, now) = two_days_old(&books).await;
    // More than one step's worth of them, and a finished one that began long before it ended.
    for n in 1..=620 {
        store.admit(asking(n, "marzipan?", now - 40 * HOUR_MS)).await.expect("writes");
    }
    store.grant(grant(1, 1, 1)).await.expect("writes");
    store.settle(answered(1, "gingerbread!", now - HOUR_MS)).await.expect("writes");
    assert_eq!(store.prune(now - 24 * HOUR_MS, 0).await.expect("writes"), 0);
    let store = books.reopened(&store).await;
    let key = PayloadKey::read(&books.database.payload_key()).expect("reads").expect("one");
    assert_eq!(key.from(), hour_of(now - 24 * HOUR_MS), "the key stepped on");
    assert_eq!(store.open_jobs().await.expect("reads").len(), 619);
    assert!(says(store.spec(job(1)).await.expect("reads"), "marzipan"));
    // Killed between the books and the file: the next opening steps on.
    store.close().await;
    let mut beside = books.connection().await;
    let later = hour_of(now) - 20;
    query("UPDATE meta SET value = $1 WHERE key = 'payload_hour'")
        .bind(later.to_string())
        .execute(&mut beside)
        .await
        .expect("writes");
    query("UPDATE job SET payload_hour = $1 WHERE payload_key IS NOT NULL")
        .bind(later)
        .execute(&mut beside)
        .await
        .expect("writes");
    books.open().await.close().await;
    let key = PayloadKey::read(&books.database.payload_key()).expect("reads").expect("one");
    assert_eq!(key.from(), later);
}

async fn disputed_payloads_are_kept_for_an_appeal(books: Books) {
    let (store, now) = two_days_old(&books).await;
    let then = now - 30 * HOUR_MS;
    for n in 1..=6 {
        pay(&store, n, "marzipan?", "gingerbread!", then + i64::try_from(n).expect("small")).await;
    }
    let mut beside = books.connection().await;
    // 1 was decided by a third run (2 and 3); 4 is not decided yet; 5 held; 6 failed by a validator's word.
    for (n, state, second, third) in [
        (1, "failed", Some(2), Some(3)),
        (4, "waiting", None, None),
        (5, "held", Some(2), None),
        (6, "failed", Some(2), None),
    ] {
        let id = |n: Option<u128>| n.map(|n| job(n).to_string());
        query(
            "INSERT INTO audit (job, lease, node, class, model, rate_ppm, state, second, third, \
             second_class, third_class, drawn_at_ms, changed_at_ms) \
             VALUES ($1, $2, '0xab', '', 'm', 1, $3, $4, $5, $7, $7, $6, $6)",
        )
        .bind(job(n).to_string())
        .bind(lease(n).to_string())
        .bind(state)
        .bind(id(second))
        .bind(id(third))
        .bind(then)
        .bind(false)
        .execute(&mut beside)
        .await
        .expect("writes");
    }
    let before = now - 24 * HOUR_MS;
    assert_eq!(store.prune(before, then).await.expect("writes"), 1, "the one that held");
    for n in 1..=6 {
        let kept = store.spec(job(n)).await.expect("reads").is_some();
        assert_eq!(kept, n != 5, "{n}");
    }
    let store = books.reopened(&store).await;
    assert!(says(store.spec(job(1)).await.expect("reads"), "marzipan"), "its key was wrapped anew");
    let evidence = async |n| {
        let mut beside = Beside::open(&books.database).await.expect("opens");
        let path = books.database.payload_key();
        beside.evidence(&books.database, &path, job(n)).await.expect("reads")
    };
    let shown = evidence(1).await.expect("it was audited");
    assert!(says(shown.asked, "marzipan"));
    let runs: Vec<_> = shown.runs.iter().map(|run| (run.job, run.output.is_some())).collect();
    assert_eq!(runs, [1, 2, 3].map(|n| (job(n), true)));
    assert!(evidence(2).await.is_none(), "nobody audited that one");
    let held = evidence(5).await.expect("it was audited");
    assert!(held.asked.is_none() && held.runs[0].output.is_none(), "it was shredded");
    assert_eq!(store.prune(before, then + 1).await.expect("writes"), 5, "their time is over, too");
    let over = evidence(1).await.expect("it was audited");
    assert!(over.asked.is_none() && over.runs.iter().all(|run| run.output.is_none()));
}

async fn books_of_former_versions_are_sealed_when_they_are_opened(books: Books) {
    let store = books.open().await;
    // More than one step's worth.
    for n in 1..=120 {
        pay(&store, n, "marzipan?", "gingerbread!", i64::try_from(n).expect("small")).await;
    }
    store.admit(asking(121, "nutmeg?", 1)).await.expect("writes");
    store.admit(asking(122, "clove?", 1)).await.expect("writes");
    store.end(close(122, JobState::Failed)).await.expect("writes");
    store.close().await;
    let mut beside = books.connection().await;
    let spec = |n, words| Some(to_json(&asking(n, words, 1).spec));
    let answer = JobOutput::Text(TextOutput::single(
        "gingerbread!",
        FinishReason::Stop,
        Usage { prompt_tokens: 1, completion_tokens: 6 },
    ));
    let JobOutput::Text(text) = answer.clone() else { unreachable!("a text") };
    let output = to_json(&super::super::pictures::Kept::Text(text));
    let plain = |spec, output, error| Raw { spec, output, error, key: None, hour: None };
    for n in 1..=120 {
        let former = plain(spec(n, "marzipan?"), Some(output.clone()), None);
        put(&mut beside, n, &former).await;
    }
    put(&mut beside, 121, &plain(spec(121, "nutmeg?"), None, None)).await;
    let error = ErrorBody::new(ErrorCode::EngineFailed, "it choked on saffron");
    put(&mut beside, 122, &plain(spec(122, "clove?"), None, Some(to_json(&error)))).await;
    drop(beside.close().await);
    let store = books.open().await;
    let mut beside = books.connection().await;
    for n in 1..=122 {
        let now = raw(&mut beside, n).await;
        assert!(now.key.is_some(), "{n}");
        let text = format!("{now:?}");
        for word in ["marzipan", "gingerbread", "nutmeg", "clove", "saffron"] {
            assert!(!text.contains(word), "{word} in {text}");
        }
    }
    for n in 1..=120 {
        assert!(says(store.spec(job(n)).await.expect("reads"), "marzipan"));
        let read = store.job(job(n)).await.expect("reads").expect("it is there");
        assert_eq!(read.output.as_ref(), Some(&answer));
    }
    let open = store.open_jobs().await.expect("reads");
    assert_eq!(open.iter().map(|open| open.id).collect::<Vec<_>>(), [job(121)]);
    let failed = store.job(job(122)).await.expect("reads").expect("it is there");
    assert_eq!(failed.error, Some(error));
    store.close().await;
    if let Some(file) = books.database.file() {
        for name in std::fs::read_dir(file.parent().expect("a folder")).expect("reads") {
            let path = name.expect("reads").path();
            let bytes = std::fs::read(&path).unwrap_or_default();
            for word in ["marzipan", "gingerbread", "nutmeg", "clove", "saffron"] {
                let found = bytes.windows(word.len()).any(|part| part == word.as_bytes());
                assert!(!found, "{word} in {}", path.display());
            }
        }
    }
}

async fn books_from_an_old_backup_open_without_their_payloads(books: Books) {
    let (store, now) = two_days_old(&books).await;
    pay(&store, 1, "marzipan?", "gingerbread!", now - 40 * HOUR_MS).await;
    store.admit(asking(2, "nutmeg?", now - 40 * HOUR_MS)).await.expect("writes");
    store.close().await;
    // The key went on with later books; these are put back with it.
    let key = PayloadKey::read(&books.database.payload_key()).expect("reads").expect("one");
    key.step_to(hour_of(now) - 24).expect("steps");
    let store = books.open().await;
    store.end_shredded().await.expect("writes");
    assert!(store.open_jobs().await.expect("reads").is_empty());
    let ended = store.job(job(2)).await.expect("reads").expect("it is there");
    assert_eq!(ended.error.expect("it failed").code, ErrorCode::PayloadShredded);
    assert!(store.job(job(1)).await.expect("reads").expect("it is there").shredded);
    assert!(store.ledger_check().await.expect("reads").holds());
    pay(&store, 3, "clove?", "anise!", now).await;
    assert!(says(store.spec(job(3)).await.expect("reads"), "clove"));
}
