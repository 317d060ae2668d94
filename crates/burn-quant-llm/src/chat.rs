//! Chat templates: from messages to the text that a model was trained on.
//!
//! A template is a Jinja program in the folder of a model. Its dialect is that of `transformers`: Python's methods of
//! texts and dictionaries, `raise_exception`, `strftime_now`, `tojson`, loop controls, and blocks trimmed.
//!
//! Source: transformers 5.14, `utils/chat_template_utils.py`.

use std::path::Path;

use burn_quant_checkpoint::gguf::GgufModel;
use burn_quant_checkpoint::{CheckpointError, Folder};
use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Kwargs, Serde, Value as JinjaValue};
use minijinja::{Environment, Error as JinjaError, ErrorKind, UndefinedBehavior, context};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::LlmError;
use crate::tokenizer::{content, json};

/// Who says a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ChatRole {
    /// Instructions for the whole conversation.
    System,
    /// The one who asks.
    User,
    /// The model.
    Assistant,
}

/// A message of a conversation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// Who says it.
    pub role: ChatRole,
    /// What is said.
    pub content: String,
}

impl Message {
    /// Creates a message.
    ///
    /// Roles have shorter ways: [`Message::system`], [`Message::user`], [`Message::assistant`].
    pub fn new(role: ChatRole, content: impl Into<String>) -> Self {
        Self { role, content: content.into() }
    }

    /// Creates instructions for the whole conversation.
    ///
    /// Templates expect them first.
    pub fn system(content: impl Into<String>) -> Self {
        Self::new(ChatRole::System, content)
    }

    /// Creates a question.
    ///
    /// Most templates expect questions and answers in turn.
    pub fn user(content: impl Into<String>) -> Self {
        Self::new(ChatRole::User, content)
    }

    /// Creates an answer.
    ///
    /// What the model said, without the token that ended it.
    pub fn assistant(content: impl Into<String>) -> Self {
        Self::new(ChatRole::Assistant, content)
    }
}

/// What follows the last message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Then {
    /// The beginning of an answer, for the model to go on: `add_generation_prompt`.
    Answer,
    /// Nothing: the conversation is over.
    Nothing,
}

/// The chat template of a folder.
///
/// # Example
///
/// ```
/// use burn_quant_llm::{ChatTemplate, Message, Then};
///
/// let template = ChatTemplate::new(
///     "{% for message in messages %}<|{{ message.role }}|>{{ message.content | trim }}{{ eos_token }}{% endfor %}\
///      {% if add_generation_prompt %}<|assistant|>{% endif %}",
/// )?
/// .with_end("</s>");
/// let prompt = template.render(&[Message::user("How many bits? ")], Then::Answer)?;
/// assert_eq!(prompt, "<|user|>How many bits?</s><|assistant|>");
/// # Ok::<(), burn_quant_llm::LlmError>(())
/// ```
#[derive(Clone, Debug)]
pub struct ChatTemplate {
    environment: Environment<'static>,
    begin: String,
    end: String,
}

/// The one template of an environment.
const TEMPLATE: &str = "chat_template";

/// Steps after which a template is taken for one that does not end.
const STEPS: u64 = 10_000_000;

impl ChatTemplate {
    /// Creates a template from its source.
    ///
    /// # Errors
    ///
    /// [`LlmError::Template`] with the line that is no Jinja.
    pub fn new(source: &str) -> Result<Self, LlmError> {
        let mut environment = Environment::new();
        let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
        environment.set_syntax(syntax.map_err(failed)?);
        environment.set_undefined_behavior(UndefinedBehavior::Lenient);
        environment.set_fuel(Some(STEPS));
        environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        environment.add_function("raise_exception", raise_exception);
        environment.add_function("strftime_now", strftime_now);
        environment.add_filter("tojson", tojson);
        environment.add_template_owned(TEMPLATE, without_training_masks(source)).map_err(failed)?;
        Ok(Self { environment, begin: String::new(), end: String::new() })
    }

    /// Reads the template of a folder, with the tokens that begin and end a text.
    ///
    /// It is `chat_template.jinja`, or else the `chat_template` of `tokenizer_config.json`: a text, or a list of named
    /// ones, of which it is `default`. `None` if the folder has neither, as those of base models.
    ///
    /// # Errors
    ///
    /// [`LlmError::Template`] if it is no Jinja, [`CheckpointError`] if a file cannot be read.
    pub fn of_folder(folder: &Folder) -> Result<Option<Self>, LlmError> {
        Self::of_path(folder.path())
    }

    /// Reads the template of a folder that need not have weights, as [`ChatTemplate::of_folder`] does.
    ///
    /// # Errors
    ///
    /// Those of [`ChatTemplate::of_folder`].
    pub fn of_path(folder: impl AsRef<Path>) -> Result<Option<Self>, LlmError> {
        let folder = folder.as_ref();
        let config = json(folder, "tokenizer_config.json")?;
        let path = folder.join("chat_template.jinja");
        let source = match std::fs::read_to_string(&path) {
            Ok(source) => Some(source),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => named(&config["chat_template"])?,
            Err(source) => return Err(CheckpointError::Io { path, source }.into()),
        };
        source.map(|source| Self::of_config(&source, &config)).transpose()
    }

    /// Reads the template that a GGUF file holds, with the tokens that begin and end a text; `None` if it has none.
    ///
    /// # Errors
    ///
    /// [`LlmError::Template`] if it is no Jinja, [`CheckpointError`] for a file without a tokenizer.
    pub fn of_gguf(gguf: &GgufModel) -> Result<Option<Self>, LlmError> {
        let config = gguf.tokenizer_config()?;
        named(&config["chat_template"])?.map(|source| Self::of_config(&source, &config)).transpose()
    }

    /// A template with the tokens of a `tokenizer_config.json`.
    fn of_config(source: &str, config: &Value) -> Result<Self, LlmError> {
        let token = |key: &str| content(&config[key]).unwrap_or_default().to_string();
        Ok(Self::new(source)?.with_begin(token("bos_token")).with_end(token("eos_token")))
    }

    /// Sets the token that begins a text, the template's `bos_token`.
    ///
    /// Empty without it.
    pub fn with_begin(mut self, token: impl Into<String>) -> Self {
        self.begin = token.into();
        self
    }

    /// Sets the token that ends a text, the template's `eos_token`.
    ///
    /// Empty without it.
    pub fn with_end(mut self, token: impl Into<String>) -> Self {
        self.end = token.into();
        self
    }

    /// Returns the text of a conversation, special tokens spelled out.
    ///
    /// [`Tokenizer::encode`](crate::Tokenizer::encode) makes tokens of it; the template has added those that the model
    /// expects.
    ///
    /// # Errors
    ///
    /// [`LlmError::Template`] if the template refuses the conversation, with its words, or fails.
    pub fn render(&self, messages: &[Message], then: Then) -> Result<String, LlmError> {
        let template = self.environment.get_template(TEMPLATE).map_err(failed)?;
        let context = context! {
            messages => JinjaValue::from(Serde(messages)),
            add_generation_prompt => then == Then::Answer,
            bos_token => self.begin.clone(),
            eos_token => self.end.clone(),
        };
        template.render(context).map_err(failed)
    }
}

/// The template of a `chat_template`: a text, or the default one of a list.
fn named(template: &Value) -> Result<Option<String>, LlmError> {
    let Value::Array(templates) = template else { return Ok(template.as_str().map(String::from)) };
    let default = templates.iter().find(|template| template["name"] == "default");
    match default.and_then(|template| template["template"].as_str()) {
        Some(source) => Ok(Some(source.into())),
        None => Err(CheckpointError::Value {
            key: "chat_template".into(),
            expected: "a text, or a list of templates of which one is named `default`",
            found: format!("a list of {}", templates.len()),
        }
        .into()),
    }
}

/// Templates mark what a model is trained to say by `{% generation %}`, which changes no text.
fn without_training_masks(source: &str) -> String {
    let (mut result, mut rest) = (String::with_capacity(source.len()), source);
    while let Some((before, after)) = rest.split_once("{%") {
        let Some((tag, after)) = after.split_once("%}") else { break };
        let (word, always) =
            (tag.trim_matches(['-', '+']).trim(), [("generation", "if true"), ("endgeneration", "endif")]);
        let tag = match always.into_iter().find(|(name, _)| *name == word) {
            Some((name, tag_of_jinja)) => tag.replacen(name, tag_of_jinja, 1),
            None => tag.to_string(),
        };
        result.extend([before, "{%", &tag, "%}"]);
        rest = after;
    }
    result + rest
}

fn raise_exception(message: String) -> Result<JinjaValue, JinjaError> {
    Err(JinjaError::new(ErrorKind::InvalidOperation, message))
}

fn strftime_now(format: &str) -> Result<String, JinjaError> {
    let now = jiff::ZonedDateTime::now();
    jiff::fmt::strtime::format(format, &now).map_err(|e| {
        JinjaError::new(ErrorKind::InvalidOperation, format!("`{format}` is no format of dates")).with_source(e)
    })
}

/// Python's `json.dumps(value, ensure_ascii=False)`: a space after commas and colons.
fn tojson(value: JinjaValue, options: Kwargs) -> Result<JinjaValue, JinjaError> {
    let indent: Option<usize> = options.get("indent")?;
    let cannot = |e: serde_json::Error| JinjaError::new(ErrorKind::InvalidOperation, "no JSON").with_source(e);
    let mut json = Vec::new();
    match indent {
        None => value.serialize(&mut serde_json::Serializer::with_formatter(&mut json, OneLine)).map_err(cannot)?,
        Some(n) => {
            let indent = " ".repeat(n);
            let pretty = serde_json::ser::PrettyFormatter::with_indent(indent.as_bytes());
            value.serialize(&mut serde_json::Serializer::with_formatter(&mut json, pretty)).map_err(cannot)?;
        }
    }
    Ok(JinjaValue::from_safe_string(String::from_utf8(json).expect("JSON is UTF-8")))
}

struct OneLine;

impl serde_json::ser::Formatter for OneLine {
    fn begin_array_value<W: std::io::Write + ?Sized>(&mut self, writer: &mut W, first: bool) -> std::io::Result<()> {
        writer.write_all(if first { b"" } else { b", " })
    }

    fn begin_object_key<W: std::io::Write + ?Sized>(&mut self, writer: &mut W, first: bool) -> std::io::Result<()> {
        writer.write_all(if first { b"" } else { b", " })
    }

    fn begin_object_value<W: std::io::Write + ?Sized>(&mut self, writer: &mut W) -> std::io::Result<()> {
        writer.write_all(b": ")
    }
}

fn failed(source: JinjaError) -> LlmError {
    LlmError::Template { source: source.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// ChatML as Qwen2.5 has it: a system message of its own, whitespace control.
    const QWEN: &str = r#"{%- if messages[0]['role'] == 'system' %}
    {{- '<|im_start|>system\n' + messages[0]['content'] + '<|im_end|>\n' }}
{%- else %}
    {{- '<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n' }}
{%- endif %}
{%- for message in messages %}
    {%- set is_late = message.role == "system" and not loop.first %}
    {%- if (message.role == "user") or is_late or (message.role == "assistant" and not message.tool_calls) %}
        {{- '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>' + '\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\n' }}
{%- endif %}
"#;

    /// Llama 3: headers, `set`, `trim`, slices, a date where there is one.
    const LLAMA: &str = r#"{{- bos_token }}
{%- if not date_string is defined %}
    {%- set date_string = "26 Jul 2024" %}
{%- endif %}
{%- if messages[0]['role'] == 'system' %}
    {%- set system_message = messages[0]['content']|trim %}
    {%- set messages = messages[1:] %}
{%- else %}
    {%- set system_message = "" %}
{%- endif %}
{{- "<|start_header_id|>system<|end_header_id|>\n\n" }}
{{- "Today Date: " + date_string + "\n\n" + system_message + "<|eot_id|>" }}
{%- for message in messages %}
    {%- if not (message.role == 'ipython' or 'tool_calls' in message) %}
        {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n' }}
        {{- message['content'] | trim + '<|eot_id|>' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|start_header_id|>assistant<|end_header_id|>\n\n' }}
{%- endif %}
"#;

    /// Mistral, older Llamas: turns are checked.
    const TURNS: &str = "{{ bos_token }}{% for message in messages %}\
        {% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}\
        {{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}\
        {% if message['role'] == 'user' %}{{ '[INST] ' + message['content'].strip() + ' [/INST]' }}\
        {% else %}{{ ' ' + message['content'] + eos_token }}{% endif %}{% endfor %}";

    fn rendered(source: &str, messages: &[Message]) -> String {
        let template = ChatTemplate::new(source).unwrap().with_begin("<s>").with_end("</s>");
        template.render(messages, Then::Answer).unwrap()
    }

    #[test]
    fn qwen_speaks_chatml_with_a_system_message_of_its_own() {
        assert_eq!(
            rendered(QWEN, &[Message::user("Hi")]),
            "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n\
             <|im_start|>assistant\n"
        );
        assert_eq!(
            rendered(QWEN, &[Message::system("Be brief."), Message::user("Hi"), Message::assistant("Hello")]),
            "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n\
             <|im_start|>assistant\nHello<|im_end|>\n<|im_start|>assistant\n"
        );
    }

    #[test]
    fn llama_3_puts_headers_around_trimmed_messages() {
        assert_eq!(
            rendered(LLAMA, &[Message::system(" Be brief. "), Message::user("Hi\n")]),
            "<s><|start_header_id|>system<|end_header_id|>\n\nToday Date: 26 Jul 2024\n\nBe brief.<|eot_id|>\
             <|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n"
        );
    }

    #[test]
    fn without_an_answer_to_come_a_conversation_ends_with_its_last_message() {
        let template = ChatTemplate::new(QWEN).unwrap();
        let text = template.render(&[Message::system("S"), Message::user("Hi")], Then::Nothing).unwrap();
        assert!(text.ends_with("user\nHi<|im_end|>\n"), "{text}");
    }

    #[test]
    fn a_template_that_refuses_a_conversation_says_why_in_its_own_words() {
        let conversation = [Message::user("  Hi "), Message::assistant("Hello"), Message::user("Bye")];
        assert_eq!(rendered(TURNS, &conversation), "<s>[INST] Hi [/INST] Hello</s>[INST] Bye [/INST]");
        let error = ChatTemplate::new(TURNS).unwrap().render(&[Message::assistant("Hi")], Then::Answer).unwrap_err();
        let LlmError::Template { source } = error else { panic!("{error:?}") };
        assert!(source.to_string().contains("roles must alternate"), "{source}");
    }

    #[test]
    fn python_methods_and_python_json_do_what_they_do_there() {
        let messages = [Message::user("<think>a</think>\nb")];
        for (expression, text) in [
            ("m.content.split('</think>')[-1].lstrip('\\n')", "b"),
            ("m.content.startswith('<think>')", "True"),
            ("m.content.replace('a', 'c') | length", "18"),
            ("m | tojson", r#"{"role": "user", "content": "<think>a</think>\nb"}"#),
            ("m.get('name', 'nobody')", "nobody"),
            ("m.content[::-1][0]", "b"),
            ("strftime_now('%Y') | int > 2000", "True"),
        ] {
            let source = format!("{{%- set m = messages[0] -%}}{{{{ {expression} }}}}");
            assert_eq!(rendered(&source, &messages), text, "{expression}");
        }
        let loops = "{% set ns = namespace(n=0) %}{% for k, v in messages[0].items() %}{% set ns.n = ns.n + 1 %}\
                     {% if k == 'role' %}{% continue %}{% endif %}{{ k }}{% endfor %} {{ ns.n }}";
        assert_eq!(rendered(loops, &messages), "content 2");
    }

    #[test]
    fn marks_of_what_is_trained_are_left_out() {
        let source = "{% for m in messages %}{%- generation -%} {{ m.content }} {%- endgeneration -%} !{% endfor %}";
        assert_eq!(rendered(source, &[Message::user("Hi")]), "Hi!");
    }

    #[test]
    fn a_source_that_is_no_template_is_an_error_with_its_line() {
        let error = ChatTemplate::new("{% if %}").unwrap_err();
        assert!(
            matches!(&error, LlmError::Template { source } if source.to_string().contains("chat_template:1")),
            "{error:?}"
        );
    }

    #[test]
    fn of_named_templates_the_default_one_is_taken() {
        use serde_json::json;
        let list = json!([{"name": "tool_use", "template": "t"}, {"name": "default", "template": "d"}]);
        assert_eq!(named(&list).unwrap().as_deref(), Some("d"));
        assert_eq!(named(&json!("one")).unwrap().as_deref(), Some("one"));
        assert_eq!(named(&json!(null)).unwrap(), None);
        assert!(named(&json!([{"name": "rag", "template": "r"}])).is_err());
    }
}
