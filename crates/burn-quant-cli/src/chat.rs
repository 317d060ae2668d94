//! `burn-quant chat`: a conversation with a model, or one answer.

use std::io::{BufRead, IsTerminal};
use std::time::Instant;

use burn_quant_llm::{ChatTemplate, Generator, LlmError, Message, Sampling, Then, Tokenizer};
use serde::Serialize;

use crate::arguments::ChatOptions;
use crate::device::Backend;
use crate::error::CliError;
use crate::interrupt::Answer;
use crate::model::Model;
use crate::output::Output;
use crate::units::{number, plural};

/// An answer, as JSON.
#[derive(Debug, Serialize)]
struct Answered {
    prompt: String,
    answer: String,
    prompt_tokens: usize,
    tokens: usize,
    /// Whether the model ended the answer, and not the limit.
    ended: bool,
    seed: u64,
    seconds: f64,
}

/// Answers a prompt, or the lines of stdin.
pub(crate) fn run(options: &ChatOptions, backend: Backend, output: &Output) -> Result<(), CliError> {
    if output.is_json() && options.prompt.is_none() {
        return Err(CliError::Usage { problem: "`chat --json` gives one answer: add `--prompt TEXT`".into() });
    }
    let model = Model::load(&options.model, &backend.device()?, output)?.packed(options.packed, output)?;
    let tokenizer = model.tokenizer(options.tokenizer.as_ref())?;
    let template = model.template(options.tokenizer.as_ref())?;
    let sampling = Sampling {
        top_k: options.top_k,
        top_p: options.top_p,
        repetition_penalty: options.repetition_penalty,
        seed: options.seed,
        stop: tokenizer.end_tokens().to_vec(),
        ..Sampling::random(options.max_tokens, options.temperature)
    };
    sampling.validate().map_err(|error| CliError::Usage { problem: error.to_string() })?;
    let chat = Chat { model: &model, tokenizer, template, sampling, output };
    let mut messages: Vec<Message> = options.system.iter().map(Message::system).collect();
    match &options.prompt {
        Some(prompt) => {
            messages.push(Message::user(prompt));
            let answered = chat.answer(&messages)?;
            if output.is_json() {
                output.result(&answered, String::new);
            }
            Ok(())
        }
        None => chat.converse(messages),
    }
}

struct Chat<'a> {
    model: &'a Model,
    tokenizer: Tokenizer,
    template: Option<ChatTemplate>,
    sampling: Sampling,
    output: &'a Output,
}

impl Chat<'_> {
    /// Answers each line of stdin.
    fn converse(&self, mut messages: Vec<Message>) -> Result<(), CliError> {
        let is_terminal = std::io::stdin().is_terminal();
        match &self.template {
            _ if !is_terminal => {}
            Some(_) => self.output.note("Ctrl-C ends an answer, Ctrl-D the conversation."),
            None => self
                .output
                .note(format!("{} has no chat template: it goes on with your text. Ctrl-D ends.", self.model.name())),
        }
        let first = messages.len();
        loop {
            if is_terminal {
                self.output.part("> ");
            }
            let mut line = String::new();
            let read = std::io::stdin().lock().read_line(&mut line);
            if read.map_err(CliError::of_file("stdin".as_ref(), "read"))? == 0 {
                return Ok(());
            }
            if line.trim().is_empty() {
                continue;
            }
            if self.template.is_none() {
                messages.truncate(first); // a text of its own
            }
            messages.push(Message::user(line.trim_end_matches(['\r', '\n'])));
            let answered = self.answer(&messages)?;
            self.output.note(format!(
                "[{}, {} per second]",
                plural(answered.tokens, "token"),
                number(answered.tokens as f64 / answered.seconds.max(1e-9))
            ));
            messages.push(Message::assistant(answered.answer));
        }
    }

    /// Answers the last message; what is said is shown as it comes.
    fn answer(&self, messages: &[Message]) -> Result<Answered, CliError> {
        let (prompt, failed) =
            (&messages.last().expect("a question").content, CliError::of_model(&self.model.path, "run"));
        let tokens = self.prompt(messages).map_err(&failed)?;
        let (start, answer) = (Instant::now(), Answer::begin());
        let mut stream = self.tokenizer.stream();
        let (mut text, mut written) = (String::new(), 0);
        let mut show = |part: String| {
            if !self.output.is_json() {
                self.output.part(&part);
            }
            text += &part;
        };
        for token in Generator::new(&self.model.decoder, &tokens, &self.sampling).map_err(&failed)? {
            show(stream.push(token).map_err(&failed)?);
            written += 1;
            if answer.is_stopped() {
                break;
            }
        }
        let ended = written < self.sampling.max_tokens && !answer.is_stopped();
        show(stream.finish().map_err(&failed)?);
        if !self.output.is_json() {
            self.output.part("\n");
        }
        Ok(Answered {
            prompt: prompt.clone(),
            answer: text,
            prompt_tokens: tokens.len(),
            tokens: written,
            ended,
            seed: self.sampling.seed,
            seconds: start.elapsed().as_secs_f64(),
        })
    }

    /// The tokens of a conversation: by the template, or the texts one after the other.
    fn prompt(&self, messages: &[Message]) -> Result<Vec<u32>, LlmError> {
        match &self.template {
            Some(template) => self.tokenizer.encode(&template.render(messages, Then::Answer)?),
            None => {
                let texts: Vec<&str> = messages.iter().map(|message| message.content.as_str()).collect();
                self.tokenizer.encode_with_special_tokens(&texts.join("\n"))
            }
        }
    }
}
