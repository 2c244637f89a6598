use super::*;
use crate::intake::gate::BODIES_KIB;
use crate::intake::gate::test_support::intake;
use crate::outbox::test_support::{transaction, with_items};
use actix_web::body::to_bytes;
use actix_web::test::{TestRequest, call_service, init_service};
use serde_json::Value;

fn sale(id: &str, store: i64) -> String {
    format!(
        r#"{{"trans_id":"{id}","store_id":{store},"date_time":"2021-01-01T09:30:00.000Z","change_type_id":1,"items":[{{"item_id":10,"quantity":-2}}]}}"#
    )
}

fn shelf(item: i64, quantity: &str) -> String {
    format!(
        r#"{{"item_id":{item},"employee_id":7,"store_id":1,"date_time":"2021-01-01 09:30:00","quantity":{quantity}}}"#
    )
}

/// Sends requests to a fresh agent that serves stores 1 and 2; returns status and JSON for each.
async fn ask(max_buffer: u64, requests: Vec<TestRequest>) -> (Vec<(u16, Value)>, Intake) {
    let dir = tempfile::tempdir().unwrap();
    let intake = intake(dir.path(), max_buffer);
    let app = init_service(App::new().app_data(web::Data::new(intake.clone())).configure(routes)).await;
    let mut answers = Vec::new();
    for request in requests {
        let answer = call_service(&app, request.to_request()).await;
        let status = answer.status().as_u16();
        let bytes = to_bytes(answer.into_body()).await.unwrap();
        let text = String::from_utf8(bytes.to_vec()).unwrap();
        answers.push((status, serde_json::from_str(&text).unwrap_or(Value::String(text))));
    }
    (answers, intake)
}

fn post(path: &str, body: impl Into<bytes::Bytes>) -> TestRequest {
    TestRequest::post().uri(path).set_payload(body.into())
}

#[actix_web::test]
async fn one_document_an_array_and_ndjson_are_taken() {
    let array = format!("[{}, {}]", sale("b", 1), sale("c", 2));
    let lines = format!("{}\n{}\n{}\n", sale("d", 1), sale("a", 1), sale("e", 1));
    let requests = vec![
        post("/v1/transactions", sale("a", 1)),
        post("/v1/transactions", sale("{a}", 1)),
        post("/v1/transactions", array),
        post("/v1/transactions", lines),
        TestRequest::get().uri("/v1/status"),
    ];
    let (answers, intake) = ask(1 << 30, requests).await;
    assert_eq!(answers[0], (200, json!({"accepted": 1, "duplicates": 0, "refused": [], "result": "accepted"})));
    assert_eq!(answers[1], (200, json!({"accepted": 0, "duplicates": 1, "refused": [], "result": "duplicate"})));
    assert_eq!(answers[2], (200, json!({"accepted": 2, "duplicates": 0, "refused": []})));
    assert_eq!(answers[3], (200, json!({"accepted": 2, "duplicates": 1, "refused": []})));
    assert_eq!(intake.reporter.outbox.backlog().events, 5);
    let status = &answers[4].1;
    assert_eq!((&status["accepted"], &status["duplicates"], &status["stores"]), (&json!(5), &json!(2), &json!([1, 2])));
    assert_eq!((&status["backlog"]["events"], &status["connected"]), (&json!(5), &json!(false)));
    assert!(status["oldest_unacknowledged_seconds"].is_number());
}

#[actix_web::test]
async fn refused_entries_are_named_and_the_others_taken() {
    let lines = format!("{}\nnonsense\n{}\n{}", sale("a", 1), sale("b", 9), sale("c", 1));
    let (answers, intake) = ask(1 << 30, vec![post("/v1/transactions", lines)]).await;
    let (status, body) = &answers[0];
    assert_eq!((*status, &body["accepted"]), (200, &json!(2)));
    let refused = body["refused"].as_array().unwrap();
    let named: Vec<_> = refused.iter().map(|r| (r["index"].clone(), r["field"].clone())).collect();
    assert_eq!(named, [(json!(1), json!("document")), (json!(2), json!("store_id"))]);
    assert!(refused[1]["reason"].as_str().unwrap().contains("it serves 1, 2"));
    assert_eq!(intake.metrics().refused.get(), 2);
}

#[actix_web::test]
async fn an_entry_that_no_frame_can_hold_is_refused_and_the_others_taken() {
    let dir = tempfile::tempdir().unwrap();
    let intake = intake(dir.path(), 1 << 30);
    let parse = |document: &[u8]| {
        let id = std::str::from_utf8(document).unwrap();
        Ok(if id == "2" { with_items(id, vec![]) } else { transaction(id, 1) })
    };
    for (body, status, accepted) in [(&b"[1, 2, 3]"[..], 200, 2), (b"2", 400, 0)] {
        let answer = take_documents(&intake, body, parse).await;
        assert_eq!(answer.status().as_u16(), status);
        let body: Value = serde_json::from_slice(&to_bytes(answer.into_body()).await.unwrap()).unwrap();
        let refused = body["refused"].as_array().unwrap();
        assert_eq!((&body["accepted"], refused.len()), (&json!(accepted), 1));
        assert_eq!(refused[0]["index"], json!(if status == 200 { 1 } else { 0 }));
        assert!(refused[0]["reason"].as_str().unwrap().contains("cannot be put into a frame"), "{body}");
    }
    assert_eq!(intake.reporter.outbox.backlog().events, 2);
}

/// Within the longest row that is read, and beyond it.
#[actix_web::test]
async fn what_is_behind_a_quote_that_nothing_closes_is_told() {
    for (rows, said) in [(300, "the row is all of lines 3 to 303"), (5_000, "no row behind it was read")] {
        let mut csv = String::from("item_id,employee_id,store_id,date_time,quantity\n1,7,1,2021-01-01 09:30:00,5\n");
        csv.push_str("2,\"7,1,2021-01-01 09:30:00,5\n");
        (0..rows).for_each(|n| csv.push_str(&format!("{},7,1,2021-01-01 09:30:00,5\n", n + 3)));
        let (answers, intake) = ask(1 << 30, vec![post("/v1/counts", csv)]).await;
        let (status, body) = &answers[0];
        assert_eq!((*status, &body["accepted"]), (400, &json!(1)), "{body}");
        let reason = body["refused"][0]["reason"].as_str().unwrap();
        assert!(reason.contains(said) && body["error"].as_str().unwrap().contains("send all of it again"), "{body}");
        assert_eq!(intake.reporter.outbox.backlog().events, 1);
    }
}

#[actix_web::test]
async fn counts_come_as_json_and_csv() {
    let csv = ",item_id,employee_id,store_id,date_time,quantity\n0,1,7,1,2021-01-01 09:30:00,5\n\
               1,x,7,1,2021-01-01 09:30:00,5\n2,3,7,1,2021-01-01 09:30:00,99999999999\n\
               3,4,7,8,2021-01-01 09:30:00,5\n4,5,7,1,2021-01-01 09:30:00,5\n";
    let requests = vec![
        post("/v1/counts", shelf(1, "5")),
        post("/v1/counts", format!("[{},{}]", shelf(2, "5"), shelf(1, "6"))),
        post("/v1/counts", csv).insert_header(("content-type", "text/csv")),
        post("/v1/counts", csv),
        post("/v1/counts", "item_id,quantity\n1,2\n"),
    ];
    let (answers, intake) = ask(1 << 30, requests).await;
    assert_eq!((answers[0].0, &answers[0].1["accepted"]), (200, &json!(1)));
    assert_eq!(answers[1].1["accepted"], json!(2), "another quantity is a correction");
    let (status, body) = &answers[2];
    assert_eq!((*status, &body["accepted"], &body["duplicates"]), (200, &json!(1), &json!(1)));
    let refused = body["refused"].as_array().unwrap();
    let named: Vec<_> = refused.iter().map(|r| (r["index"].clone(), r["line"].clone())).collect();
    assert_eq!(named, [(json!(1), json!(3)), (json!(2), json!(4)), (json!(3), Value::Null)]);
    assert_eq!(answers[3].1["duplicates"], json!(2), "CSV is recognised without a content type");
    assert_eq!(answers[4].0, 400);
    assert_eq!(intake.reporter.outbox.backlog().events, 4);
}

/// Each row once: of very many bad ones some are named and the rest counted, and the good ones between them are taken.
#[actix_web::test]
async fn a_count_file_of_bad_rows_is_gone_through_once() {
    let bad = 300_000;
    let mut csv = String::from("item_id,employee_id,store_id,date_time,quantity\n");
    for n in 0..bad {
        csv.push_str("x,7,1,2021-01-01 09:30:00,5\n");
        if n % 100_000 == 0 {
            csv.push_str(&format!("{},7,1,2021-01-01 09:30:00,5\n", n + 1));
        }
    }
    // Behind what was accepted: a row that says what a header says is a bad row, not a bad file.
    csv.push_str("item_id,employee_id,store_id,date_time,quantity\n");
    let (answers, intake) = ask(1 << 30, vec![post("/v1/counts", csv)]).await;
    let (status, body) = &answers[0];
    assert_eq!((*status, &body["accepted"]), (200, &json!(3)));
    let refused = body["refused"].as_array().unwrap();
    assert_eq!((refused.len(), &body["refused_not_named"]), (MAX_NAMED, &json!(bad + 1 - MAX_NAMED)));
    assert_eq!((&refused[0]["index"], &refused[0]["line"]), (&json!(0), &json!(2)));
    assert_eq!((&refused[1]["index"], &refused[1]["line"]), (&json!(2), &json!(4)));
    assert_eq!(intake.metrics().refused.get(), bad as u64 + 1);
    assert_eq!(intake.reporter.outbox.backlog().events, 3);
}

#[actix_web::test]
async fn garbage_gets_a_clear_answer_and_changes_nothing() {
    let long_id = sale(&"x".repeat(2_000), 1);
    let large = sale(&"y".repeat(300 * 1024), 1);
    let cases: Vec<(Vec<u8>, &str)> = vec![
        (b"a text file".to_vec(), "document"),
        (b"\x1f\x8b\x08\x00\x00\x00".to_vec(), "document"),
        (b"\xff\xfe\x00".to_vec(), "document"),
        (b"".to_vec(), "document"),
        (b"[".to_vec(), "document"),
        (sale("a", -1).into_bytes(), "store_id"),
        (long_id.into_bytes(), "trans_id"),
        (sale("a", 1).replace("2021-", "0000-").into_bytes(), "date_time"),
        (sale("a", 1).replace("2021-", "9999-").into_bytes(), "date_time"),
        (sale("a", 1).replace("-2}", "-3000000000}").into_bytes(), "items[0].quantity"),
        (large.into_bytes(), "document"),
        (sale("a", 3).into_bytes(), "store_id"),
    ];
    let fields: Vec<&str> = cases.iter().map(|c| c.1).collect();
    let requests = cases.into_iter().map(|(body, _)| post("/v1/transactions", body)).collect();
    let (answers, intake) = ask(1 << 30, requests).await;
    for ((status, body), field) in answers.iter().zip(fields) {
        assert_eq!((*status, body["field"].as_str()), (400, Some(field)), "{body}");
        assert!(!body["reason"].as_str().unwrap().is_empty());
    }
    assert_eq!(intake.reporter.outbox.backlog().events, 0);
}

#[actix_web::test]
async fn a_batch_in_which_nothing_is_good_is_an_error() {
    let (answers, _) = ask(1 << 30, vec![post("/v1/transactions", "[1, {}]")]).await;
    assert_eq!((answers[0].0, answers[0].1["refused"].as_array().unwrap().len()), (400, 2));
    assert!(answers[0].1["error"].is_string());
}

#[actix_web::test]
async fn bounds_are_kept_and_said() {
    let too_large = vec![b' '; MAX_BODY + 1];
    let compressed = post("/v1/transactions", sale("a", 1)).insert_header(("content-encoding", "gzip"));
    let (answers, intake) = ask(1 << 30, vec![post("/v1/transactions", too_large), compressed]).await;
    assert_eq!((answers[0].0, answers[1].0), (413, 415));
    assert!(answers.iter().all(|a| a.1["error"].is_string()));
    assert_eq!(intake.reporter.outbox.backlog().events, 0);
    assert_eq!(intake.body_budget.available_permits(), BODIES_KIB, "what was read is given back");
}

#[actix_web::test]
async fn a_full_outbox_answers_507_and_says_so_in_its_health() {
    let requests = (0..20).map(|n| post("/v1/transactions", sale(&format!("{n}-{}", "z".repeat(200)), 1))).collect();
    let (answers, intake) = ask(3_000, requests).await;
    let accepted = answers.iter().filter(|a| a.1["accepted"] == 1).count();
    assert!(accepted > 0 && accepted < 20);
    assert_eq!(answers[19].0, 507);
    assert!(answers[19].1["error"].as_str().unwrap().contains("max_buffer"));
    assert_eq!(intake.reporter.outbox.backlog().events, accepted as u64);
    assert!(intake.metrics().full.get() >= 1);
    let (answers, _) = ask(10, vec![TestRequest::get().uri("/healthz")]).await;
    assert_eq!(answers[0].0, 503);
    assert!(answers[0].1["error"].as_str().unwrap().contains("full"));
}

#[actix_web::test]
async fn unknown_addresses_and_methods_answer_in_json() {
    let requests = ["/nowhere", "/v1/transactions", "/healthz", "/metrics"];
    let (answers, _) = ask(1 << 30, requests.map(|path| TestRequest::get().uri(path)).into()).await;
    assert_eq!(answers.iter().map(|a| a.0).collect::<Vec<_>>(), [404, 405, 200, 200]);
    assert!(answers[0].1["error"].is_string() && answers[1].1["error"].is_string());
    let metrics = answers[3].1.as_str().unwrap();
    let expected =
        ["onhand_agent_backlog_events 0", "HELP onhand_agent_commit_seconds", "onhand_agent_events_accepted_total 0"];
    for line in expected {
        assert!(metrics.contains(line), "{line} is not in\n{metrics}");
    }
}

#[actix_web::test]
async fn a_request_of_a_million_entries_leaves_the_others_their_turn() {
    let dir = tempfile::tempdir().unwrap();
    let app = App::new().app_data(web::Data::new(intake(dir.path(), 1 << 30))).configure(routes);
    let app = init_service(app).await;
    let done = std::cell::Cell::new(false);
    let large = async {
        let answer = call_service(&app, post("/v1/transactions", "{}\n".repeat(1_000_000)).to_request()).await;
        done.set(true);
        answer.status().as_u16()
    };
    let others = async {
        for turn in 0..1_000 {
            assert!(!done.get(), "all of it was done within {turn} turns of others");
            tokio::task::yield_now().await;
        }
    };
    assert_eq!(futures::join!(large, others).0, 400);
}
